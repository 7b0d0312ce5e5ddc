# SPDX-License-Identifier: Apache-2.0
"""Arms: their servers are started or found, asked everything, measured and, if started, stopped."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from eval.commands.stopping import batches_of, decision, in_words, moved_enough
from eval.commands.witness_elsewhere import OfElsewhere
from eval.commands.witnesses import OfStarted, Witness, Witnessed
from eval.config.schema import BASELINE, Arm, Config, Task, TaskName
from eval.load.batches import Asked
from eval.load.question_client import Progress, RequestError
from eval.load.questions import Answers, ask
from eval.preflight.question_files import Files
from eval.report.arm_counts import rearrangements
from eval.results.folder import RunFolder
from eval.results.samples import Sample
from eval.results.schema import ArmRun
from eval.serving.failure.refusals import FAILED, STOPPED_ANSWERING
from eval.serving.served_arm import serve


def run_arms(
    config: Config,
    arms: Sequence[Arm],
    executable: str,
    files: Mapping[TaskName, Files | None],
    folder: RunFolder,
    console: Console,
    key: str | None = None,
) -> None:
    """Start the servers of some arms together, ask one after another, keep what they gave.

    Args:
        config: Whose arms they are.
        arms: Those of one that run elsewhere are asked, too, and nothing is started for them.
        executable: The ``vllm`` that serves.
        files: The questions of each task.
        folder: Of the run.
        console: For what goes on.
        key: For servers elsewhere.

    Raises:
        EvaluationError: A server did not start or stopped answering.
    """
    folders = [(arm, folder.new_arm_folder(arm.name)) for arm in arms]
    here = [(arm, its) for arm, its in folders if arm.url is None]
    with serve(config, here, executable, console) as servers:
        started = {one.arm.name: one for one in servers}
        for arm, its in folders:
            witness: Witness
            if arm.url is None:
                witness = OfStarted(started[arm.name])
            else:
                witness = OfElsewhere(config, arm, its, key)
            console.print(f"arm {arm.name}: {witness.is_ready}, asking", soft_wrap=True)
            _ask(config, witness, files, folder, console)


def _ask(
    config: Config,
    witness: Witness,
    files: Mapping[TaskName, Files | None],
    folder: RunFolder,
    console: Console,
) -> None:
    arm, server = witness.arm, witness.server
    witness.begin()
    off = [] if arm.name == BASELINE else folder.samples(BASELINE)
    answers: list[Answers] = []

    def moved(asked: Asked) -> bool:
        started = answers[0].started if answers else asked.started
        seen = witness.so_far(started, asked.finished)
        so_far = _so_far(arm, seen, started, asked.finished)
        return moved_enough(config, arm, witness.folder, so_far)

    try:
        for task in config.tasks_of(arm):
            found = ask(
                server.model_name,
                task,
                server.url,
                server.headers,
                files[task.name],
                witness.folder / "ask.log",
                Progress(f"arm {arm.name}, {task.name}", witness.says),
                batches_of(config, arm, task, off, moved),
            )
            answers.append(_with_decision(config, arm, task, off, found))
            witness.task_is_done()
    except RequestError as error:
        happened = f"arm {arm.name}: {error.happened}"
        if error.happened in (STOPPED_ANSWERING, FAILED):
            raise server.stopped_answering(happened, str(error)) from error
        raise server.failure(f"{happened}: {error}") from error
    seen = witness.end(answers[0].started, answers[-1].finished)
    finished = _summary(arm, answers, seen)
    samples = [sample for task in answers for sample in task.samples]
    folder.finish_arm(finished, samples)
    decided = [in_words(one.name, one.decision) for one in finished.tasks if one.decision]
    console.print(
        f"arm {arm.name}: {len(samples)} questions in {finished.seconds:.1f} s, "
        f"{', '.join([rearrangements(config, arm, finished), *decided])}"
    )


def _with_decision(
    config: Config, arm: Arm, task: Task, off: Sequence[Sample], found: Answers
) -> Answers:
    made = decision(config, arm, task, off, found.samples)
    return found.model_copy(update={"summary": found.summary.model_copy(update={"decision": made})})


def _summary(arm: Arm, answers: Sequence[Answers], seen: Witnessed) -> ArmRun:
    seconds = sum(task.finished - task.started for task in answers)
    tokens = seen.generated_tokens
    whole = {
        "tasks": [task.summary for task in answers],
        "seconds": seconds,
        "tokens_per_second": None if tokens is None else tokens / seconds,
    }
    until = answers[-1].finished
    return _so_far(arm, seen, answers[0].started, until).model_copy(update=whole)


def _so_far(arm: Arm, seen: Witnessed, asked_from: float, asked_until: float) -> ArmRun:
    """An arm between two times, without what its answers say."""
    return ArmRun(
        **seen.activity.model_dump(),
        name=arm.name,
        tasks=[],
        start_seconds=seen.start_seconds,
        asked_from=asked_from,
        asked_until=asked_until,
        logged_rearrangements=seen.logged_rearrangements,
        log_asked=seen.log_asked,
        seconds=0,
        tokens_per_second=None,
        command=seen.command,
        log=seen.log,
        elsewhere=seen.elsewhere,
    )
