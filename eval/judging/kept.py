# SPDX-License-Identifier: Apache-2.0
"""Judge what runs left in their folders, without asking anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eval.activity.counts import read_activity
from eval.config.schema import CONTROL_PREFIX, Arm, Config, Gate
from eval.errors import GateError
from eval.judging.arms import JudgedArm, judged, without_tasks
from eval.judging.comparison import arm_results
from eval.judging.controls import judge_all
from eval.judging.verdict import reasons, verdict
from eval.results.folder import RunFolder, read_result, read_state
from eval.results.samples import Sample
from eval.results.schema import ArmRun, Result


class _Left(NamedTuple):
    """What a run left."""

    folder: RunFolder
    result: Result
    runs: list[ArmRun]
    samples: dict[str, list[Sample]]


def judge_again(folders: Sequence[Path], gate: Gate | None = None) -> Result:
    """Judge the first run, together with the arms of the others beside its arm ``off``.

    Nothing is written. An arm of another run is named ``RUN.ARM``; its ``off`` repeats that of the
    first. A task that one of the runs left out is left out.

    Args:
        folders: Of runs with the same model and the same tasks.
        gate: Instead of the first run's.

    Raises:
        EvaluationError: A folder is no run, not complete or cannot be read, or the runs cannot be
            compared; names the folder or the file.
    """
    first, *others = [_read(folder) for folder in folders]
    for other in others:
        _require_comparable(first, other)
    config = first.result.config.model_copy(update={"gate": gate or first.result.config.gate})
    left_out = _left_out(first, others)
    arms = _arms(first)
    for other in others:
        for arm in _arms(other):
            if arm.name.startswith(CONTROL_PREFIX):  # judged in its own run
                continue
            named = f"{other.result.name}.{arm.name}"
            if named in [one.name for one in arms]:
                raise GateError(f"two runs are named {other.result.name!r}: names must differ")
            run = arm.run.model_copy(update={"name": named})
            arms.append(arm._replace(name=named, run=run))
            added = Arm(name=named, eplb=arm.eplb, plugin=dict(arm.plugin or {}))
            config = config.model_copy(update={"arms": [*config.arms, added]})
    arms = [without_tasks(arm, left_out) for arm in arms]
    asked = config.without_tasks(left_out)
    rules, controls = judge_all(asked, arms, first.result.oracle)
    return first.result.model_copy(
        update={
            "verdict": verdict(rules),
            "reasons": reasons(rules),
            "rules": rules,
            "controls": controls,
            "config": config,
            "config_sha256": config.sha256(),
            "task_hashes": {task.name: task.task_hash for task in arms[0].run.tasks},
            "left_out": left_out,
            "arms": arm_results([arm.run for arm in arms], {arm.name: arm.samples for arm in arms}),
        }
    )


def _left_out(first: _Left, others: Sequence[_Left]) -> dict[str, str]:
    left_out = dict(first.result.left_out)
    for other in others:
        for task, why in other.result.left_out.items():
            left_out.setdefault(task, f"run {other.result.name} left it out. {why}")
    if not first.result.config.without_tasks(left_out).tasks:
        raise GateError(
            f"{first.folder.path} cannot be judged with the others: each task was left out by one "
            "of the runs"
        )
    return left_out


def _arms(left: _Left) -> list[JudgedArm]:
    return [
        judged(left.result.config, arm, run, left.samples[arm.name])
        for arm, run in zip(left.result.config.arms, left.runs, strict=True)
    ]


def _read(path: Path) -> _Left:
    result = read_result(path)
    if result.kind != "accuracy":
        raise GateError(
            f"{path} is a {result.kind} run: what it was judged by stands in its report, and only "
            "runs of `python -m eval run` are judged again"
        )
    folder = RunFolder(path, read_state(path))
    runs, samples = [], {}
    for arm in result.config.arms:
        run = folder.finished_arm(arm.name)
        if run is None:
            raise GateError(
                f"{path}: arm {arm.name} is missing: there is no "
                f"{folder.arm_folder(arm.name) / 'arm.json'}. Run the evaluation to its end"
            )
        evidence = read_activity(
            folder.arm_folder(arm.name) / "events", run.asked_from, run.asked_until
        )
        runs.append(run.model_copy(update=dict(evidence)))
        samples[arm.name] = folder.samples(arm.name)
        _require_complete(folder, run, samples[arm.name])
    _require_the_configured(path, result.config.without_tasks(result.left_out), runs)
    return _Left(folder, result, runs, samples)


def _require_complete(folder: RunFolder, run: ArmRun, samples: Sequence[Sample]) -> None:
    asked = sum(task.questions for task in run.tasks)
    if len(samples) != asked:
        raise GateError(
            f"{folder.arm_folder(run.name) / 'samples.jsonl'} has {len(samples)} answers, but "
            f"{asked} were given: the file is not complete"
        )


def _require_the_configured(path: Path, config: Config, runs: Sequence[ArmRun]) -> None:
    """Arms of another run may have been copied into the folder."""
    tasks = [task.name for task in config.tasks]
    for run in runs:
        asked = [task.name for task in run.tasks]
        if asked != tasks:
            raise GateError(
                f"{path}: arm {run.name} was asked {', '.join(asked)}, the run's tasks are "
                f"{', '.join(tasks)}: it is of another run"
            )
        if config.model not in run.command:
            raise GateError(
                f"{path}: arm {run.name} did not serve the run's model {config.model}: its "
                f"command is {' '.join(run.command)}"
            )


def _require_comparable(first: _Left, other: _Left) -> None:
    mine, its = first.result.config, other.result.config
    values: Mapping[str, tuple[object, object]] = {
        "model": (mine.model, its.model),
        "model files": (first.folder.state.model_files, other.folder.state.model_files),
        "dtype": (mine.serve.option("dtype"), its.serve.option("dtype")),
        "tasks": (
            [task.model_dump() for task in mine.tasks],
            [task.model_dump() for task in its.tasks],
        ),
    }
    for what, (value, other_value) in values.items():
        if value != other_value:
            raise GateError(
                f"{first.folder.path} and {other.folder.path} cannot be compared: their {what} "
                f"differ, {value} and {other_value}"
            )
