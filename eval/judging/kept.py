# SPDX-License-Identifier: Apache-2.0
"""Judge what runs left in their folders, without asking anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eval.config.control_arms import CONTROL_PREFIX, is_control, without_controls
from eval.config.gate_section import Gate
from eval.config.schema import Arm, Config
from eval.errors import GateError
from eval.judging.arms import ArmToJudge, without_tasks
from eval.judging.comparison import arm_results
from eval.judging.controls import judge_with_controls
from eval.judging.elsewhere_rules import notes_of_elsewhere
from eval.judging.kept_arm import read_arm
from eval.judging.kept_decision import require_decisions
from eval.judging.kept_oracle import read_oracle
from eval.judging.same_run import require_different_arms, require_different_runs
from eval.judging.untouched import require_untouched
from eval.judging.verdict import reasons, verdict
from eval.results.folder import RunFolder, read_result
from eval.results.oracle_result import OracleResult
from eval.results.schema import SCHEMA_VERSION, Result
from eval.results.state import read_state

_NOT_TIED = (
    "{name}: a run of schema {schema} has no digests, so nothing ties its files together: an edit "
    "of them need not show"
)


class _Kept(NamedTuple):
    """What a run left."""

    folder: RunFolder
    result: Result
    arms: list[ArmToJudge]
    oracle: OracleResult | None


class Evidence(NamedTuple):
    """What a verdict comes from."""

    arms: list[ArmToJudge]
    """All of the run, ``off`` first."""
    oracle: OracleResult | None


def read_evidence(folder: RunFolder, config: Config, schema: int = SCHEMA_VERSION) -> Evidence:
    """Read what a run left and compute again what decides its verdict.

    Args:
        folder: Of the run.
        config: Of the run, without the tasks that were left out.
        schema: Of its result.

    Raises:
        EvaluationError: Something is missing, cannot be read, or does not fit the rest; names it.
    """
    arms = [read_arm(folder, config, arm, schema) for arm in config.arms]
    require_different_arms([(arm, folder.arm_folder(arm.name)) for arm in arms])
    require_decisions(folder, config, arms)
    return Evidence(arms, read_oracle(folder, config, arms[0].samples))


def judge_kept(folders: Sequence[Path], gate: Gate | None = None) -> Result:
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
    first, *others = kept = [_read(folder) for folder in folders]
    _require_different(kept)
    for other in others:
        _require_comparable(first, other)
        if is_control(other.result.name):
            raise GateError(
                f"{other.folder.path}: {CONTROL_PREFIX} begins the names of arms with a fault, and "
                "those of its arms would begin with it: name this run first, or evaluate again "
                "under another --name"
            )
    config = first.result.config.model_copy(update={"gate": gate or first.result.config.gate})
    left_out = _left_out(first, others)
    arms = [*first.arms]
    for other in others:
        for arm in without_controls(other.arms):  # controls are judged in their own run
            named = f"{other.result.name}.{arm.name}"
            if named in [one.name for one in arms]:
                raise GateError(f"two runs are named {other.result.name!r}: names must differ")
            run = arm.run.model_copy(update={"name": named})
            arms.append(arm._replace(name=named, run=run))
            url = arm.elsewhere.url if arm.elsewhere else None
            added = Arm(name=arm.name, eplb=arm.eplb, plugin=dict(arm.plugin or {}), url=url)
            # Two names in one may be longer than a name.
            added = added.model_copy(update={"name": named})
            config = config.model_copy(update={"arms": [*config.arms, added]})
    arms = [without_tasks(arm, left_out) for arm in arms]
    asked = config.without_tasks(left_out)
    rules, controls = judge_with_controls(asked, arms, first.oracle)
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
            "oracle": first.oracle,
            "arms": arm_results([arm.run for arm in arms], {arm.name: arm.samples for arm in arms}),
            "notes": [*_notes(kept), *notes_of_elsewhere(arms, rules)],
        }
    )


def _left_out(first: _Kept, others: Sequence[_Kept]) -> dict[str, str]:
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


def _read(path: Path) -> _Kept:
    result = read_result(path)
    if result.kind != "accuracy":
        raise GateError(
            f"{path} is a {result.kind} run: what it was judged by stands in its report, and only "
            "runs of `python -m eval run` are judged again"
        )
    folder = RunFolder(path, read_state(path))
    require_untouched(folder, result)
    config = result.config.without_tasks(result.left_out)
    return _Kept(folder, result, *read_evidence(folder, config, result.schema_version))


def _require_different(runs: Sequence[_Kept]) -> None:
    if len({run.folder.path.resolve() for run in runs}) < len(runs):
        raise GateError("a run is named twice: it cannot be compared with itself")
    require_different_runs({run.folder.path: run.folder.state.id for run in runs})
    require_different_arms(
        [(arm, run.folder.arm_folder(arm.name)) for run in runs for arm in run.arms]
    )


def _require_comparable(first: _Kept, other: _Kept) -> None:
    mine, its = first.result.config, other.result.config
    values: Mapping[str, tuple[object, object]] = {
        "model": (mine.model, its.model),
        "model files": (first.folder.state.model_files, other.folder.state.model_files),
        **{
            option: (mine.serve.option(option), its.serve.option(option))
            for option in ("dtype", "quantization", "revision")
        },
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


def _notes(runs: Sequence[_Kept]) -> list[str]:
    return [
        _NOT_TIED.format(name=run.result.name, schema=run.result.schema_version)
        for run in runs
        if run.result.schema_version < SCHEMA_VERSION
    ]
