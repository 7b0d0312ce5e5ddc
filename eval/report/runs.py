# SPDX-License-Identifier: Apache-2.0
"""Read the folders of finished runs, and refuse what cannot stand in one report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.activity.timeline import Timeline, read_timelines
from eval.config.control_arms import without_controls
from eval.config.schema import BASELINE
from eval.errors import RunFolderError
from eval.results.folder import RunFolder, read_result
from eval.results.resuming import UNFINISHED
from eval.results.samples import Sample
from eval.results.schema import ArmResult, Result
from eval.results.state import read_state


@dataclass(frozen=True)
class ArmRecord:
    """One arm with its answers and what happened to its experts."""

    result: ArmResult
    samples: Sequence[Sample]
    timelines: Sequence[Timeline]
    """One for each model that was rearranged; empty without EPLB."""


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    label: str
    """Tells it from the other runs of the report."""
    result: Result
    arms: Sequence[ArmRecord]
    """The finished ones but for negative controls; ``off`` is the first."""
    missing: Sequence[str]
    """Configured arms that did not finish, of a run that did not get to its end."""


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read one or more runs of the same model and tasks.

    Raises:
        RunFolderError: A file is missing or cut off, a finished run lacks an arm, or runs have
            other models or tasks.
        EventsError: Events cannot be read.
    """
    labels = _labels(folders)
    runs = [read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]
    for run, folder in zip(runs[1:], folders[1:], strict=True):
        _require_same_questions(folders[0], runs[0].result, folder, run.result)
    return runs


def read_run(folder: Path, label: str) -> Run:
    """Read one run."""
    result = read_result(folder)
    finished = {arm.name: arm for arm in result.arms}
    names = [arm.name for arm in without_controls(result.config.arms)]
    missing = [name for name in names if name not in finished]
    if missing and result.verdict not in UNFINISHED:
        raise RunFolderError(
            f"{folder / 'result.json'}: arm {missing[0]} is missing, although the run is "
            f"configured to have it and its verdict is {result.verdict!r}: evaluate again"
        )
    files = RunFolder(folder, read_state(folder))
    arms = [_read_arm(files, finished[name]) for name in names if name in finished]
    if arms and arms[0].result.name != BASELINE:
        raise RunFolderError(f"{folder / 'result.json'}: the first arm is not {BASELINE!r}")
    return Run(label, result, arms, missing)


def _read_arm(folder: RunFolder, arm: ArmResult) -> ArmRecord:
    here = folder.arm_folder(arm.name)
    if not here.is_dir():
        raise RunFolderError(f"arm {arm.name} is missing: there is no folder {here}")
    samples = folder.samples(arm.name)
    expected = sum(task.questions for task in arm.tasks)
    if len(samples) != expected:
        raise RunFolderError(
            f"{here / 'samples.jsonl'} has {len(samples)} answers, but {expected} were given: "
            "the file is not complete"
        )
    timelines = read_timelines(here / "events", arm.asked_from, arm.asked_until)
    return ArmRecord(arm, samples, timelines)


def _require_same_questions(
    first_folder: Path, first: Result, folder: Path, result: Result
) -> None:
    def refuse(what: str, one: object, other: object) -> RunFolderError:
        return RunFolderError(
            f"{folder} and {first_folder} cannot stand in one report: {what} {other} and {one}"
        )

    if first.config.model != result.config.model:
        raise refuse("their models are", first.config.model, result.config.model)
    tasks, others = ([task.name for task in one.config.tasks] for one in (first, result))
    if tasks != others:
        raise refuse("their tasks are", tasks, others)
    for task, digest in first.task_hashes.items():
        other = result.task_hashes.get(task, digest)
        if other != digest:
            raise refuse(f"they asked other questions of {task}, their hashes are", digest, other)


def _labels(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]
