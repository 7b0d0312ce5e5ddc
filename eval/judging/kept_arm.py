# SPDX-License-Identifier: Apache-2.0
"""One arm as it was kept: read, and computed again as far as a verdict needs it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.activity.agreement import agree
from eval.activity.by_metrics import activity_by_metrics
from eval.activity.counts import count_activity
from eval.activity.rank_files import read_rank_files
from eval.activity.scrapes import read_kept
from eval.activity.totals import Activity
from eval.activity.vllm_log import count_rearrangements, read_log
from eval.config.elsewhere import same_server
from eval.config.schema import Arm, Config
from eval.errors import GateError
from eval.judging.arms import ArmToJudge, arm_to_judge
from eval.judging.command_line import strange_in_command
from eval.judging.comparison import accuracy
from eval.judging.scoring import digest, score, task_hash
from eval.results.elsewhere import witness_of
from eval.results.folder import RunFolder
from eval.results.samples import Sample
from eval.results.schema import ArmRun, TaskRun

_COUNTED = (
    "rearrangements",
    "rearrangements_started",
    "layers_committed",
    "weight_checks",
    "map_checks",
    "weight_mismatches",
    "map_mismatches",
    "placements_rejected",
    "failed",
    "events_dropped",
)
"""Counts of `Activity` that cannot become fewer after the arm was finished."""


def read_arm(folder: RunFolder, config: Config, arm: Arm, schema: int) -> ArmToJudge:
    """An arm with its answers, and what its events and its log say.

    Args:
        folder: Of the run.
        config: Of the run, without the tasks that were left out.
        arm: One of ``config``.
        schema: Of the run's result.

    Raises:
        EvaluationError: A file is missing, cannot be read, or does not say what follows from the
            others; names the file.
    """
    here = folder.arm_folder(arm.name)
    run = require_finished(folder, arm.name)
    _require_this_arm(folder, config, arm, run)
    samples = folder.samples(arm.name)
    _require_answers(here, run, samples)
    judged = with_activity(here, config, arm, run, samples)
    if judged.run.elsewhere != run.elsewhere:
        raise GateError(
            f"{here / 'arm.json'}: elsewhere.witness is not what is there of events and metrics: "
            "a file was added, changed or taken away"
        )
    if schema > 3:  # which counted otherwise
        _require_counts(here, run, judged.run)
    return judged


def with_activity(
    here: Path, config: Config, arm: Arm, run: ArmRun, samples: Sequence[Sample]
) -> ArmToJudge:
    """An arm with what the events and the log in its folder say.

    Args:
        here: The folder.
        config: Has the arm.
        arm: How it was configured.
        run: What became of it; what events tell is counted again.
        samples: Its answers.

    Raises:
        EventsError: A file of events cannot be read.
    """
    files = read_rank_files(here / "events")
    scrapes = read_kept(here)
    elsewhere = run.elsewhere
    if elsewhere is not None:
        found = witness_of(arm.eplb is not None, bool(files), scrapes)
        elsewhere = elsewhere.model_copy(update={"witness": found})
    if elsewhere is not None and elsewhere.witness == "metrics":
        activity = activity_by_metrics(scrapes, run.asked_from, run.asked_until)
    else:
        activity = count_activity(files, run.asked_from, run.asked_until)
    stages = config.serve.degree("pipeline-parallel-size")
    agreement = agree(files, config.serve.ranks, stages, run.asked_until)
    log = read_log(here / "server.log")
    if log is None:
        logged = 0
    elif run.log_asked is None:
        logged = min(run.logged_rearrangements, log.rearrangements)
    else:
        logged = count_rearrangements(here / "server.log", *run.log_asked)
    counted = {**dict(activity), "logged_rearrangements": logged, "elsewhere": elsewhere}
    now = run.model_copy(update=counted)
    return arm_to_judge(config, arm, now, samples, agreement, log, scrapes)


def require_finished(folder: RunFolder, name: str) -> ArmRun:
    """An arm by itself.

    Raises:
        EvaluationError: It did not finish, or cannot be read.
    """
    run = folder.finished_arm(name)
    if run is None:
        raise GateError(
            f"{folder.path}: arm {name} is missing: there is no "
            f"{folder.arm_folder(name) / 'arm.json'}. Run the evaluation to its end"
        )
    return run


def _require_this_arm(folder: RunFolder, config: Config, arm: Arm, run: ArmRun) -> None:
    file = folder.arm_folder(arm.name) / "arm.json"
    if run.name != arm.name:
        raise GateError(f"{file} is of arm {run.name}, not of arm {arm.name}")
    if run.run != folder.state.id:
        raise GateError(f"{file} is of another run, {run.run!r} and not {folder.state.id!r}")
    asked = [(task.name, task.scored) for task in run.tasks]
    expected = [(task.name, task.scored) for task in config.tasks_of(arm)]
    if [name for name, _ in asked] != [name for name, _ in expected]:
        raise GateError(
            f"{folder.path}: arm {arm.name} was asked {_names(asked)}, the run's tasks are "
            f"{_names(expected)}: it is of another run"
        )
    if asked != expected:
        raise GateError(f"{file}: tasks.scored is not as the run's configuration says")
    if not run.asked_from < run.asked_until:
        raise GateError(f"{file}: asked_until is not after asked_from")
    strange = _strange_server(config, arm, run)
    if strange:
        raise GateError(
            f"{folder.path}: arm {arm.name} is of another arm or run: {strange}; its command is "
            f"{' '.join(run.command) or '(none)'}"
        )


def _strange_server(config: Config, arm: Arm, run: ArmRun) -> str | None:
    """What shows that it was not that of the arm; None: nothing."""
    if run.elsewhere is None and arm.url is None:
        return strange_in_command(config, arm, run.command)
    if run.elsewhere is None or arm.url is None or run.command:
        return "its server was started by the harness in one of the two, and runs elsewhere"
    if not same_server(arm.url, run.elsewhere.url):
        return f"it was asked at {run.elsewhere.url}, and the url of the arm is {arm.url}"
    return None


def _require_answers(folder: Path, run: ArmRun, samples: Sequence[Sample]) -> None:
    """What is kept of the answers must follow from them."""
    file = folder / "samples.jsonl"
    asked = sum(task.questions for task in run.tasks)
    if len(samples) != asked:
        raise GateError(
            f"{file} has {len(samples)} answers, but {asked} were given: the file is not complete"
        )
    for number, sample in enumerate(samples, start=1):
        for field, value in _computed(sample).items():
            kept = getattr(sample, field)
            if kept != value:
                raise GateError(
                    f"{file}, line {number}: {field} is {kept!r}, but {value!r} follows from the "
                    "prompt, the answer and the right answer: the file was changed"
                )
    for task in run.tasks:
        for field, value in _summary(task, samples):
            kept = getattr(task, field)
            if kept != value and not (isinstance(value, float) and abs(kept - value) < 1e-9):
                raise GateError(
                    f"{folder / 'arm.json'}: {field} of {task.name} is {kept!r}, but the answers "
                    f"in {file} give {value!r}: one of the two was changed"
                )


def _computed(sample: Sample) -> dict[str, object]:
    return {
        "prompt_hash": digest(sample.prompt),
        "target_hash": digest(sample.target),
        **score(sample.task, sample.text, sample.target)._asdict(),
    }


def _summary(task: TaskRun, samples: Sequence[Sample]) -> Iterator[tuple[str, object]]:
    own = sorted((one for one in samples if one.task == task.name), key=lambda one: one.doc_id)
    yield "questions", len({one.doc_id for one in own})
    yield "task_hash", task_hash(own)
    yield "accuracy", accuracy(own, task.name).value
    yield "accuracy_flexible", sum(one.flexible_correct for one in own) / max(1, len(own))


def _require_counts(folder: Path, run: ArmRun, activity: Activity) -> None:
    for field in _COUNTED:
        kept, now = getattr(run, field), getattr(activity, field)
        if now < kept:
            raise GateError(
                f"{folder / 'events'} tells of fewer {field.replace('_', ' ')} than when the arm "
                f"was asked, {now} of {kept}: events are missing"
            )


def _names(tasks: Sequence[tuple[str, bool]]) -> str:
    return ", ".join(name for name, _ in tasks)
