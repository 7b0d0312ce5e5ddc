# SPDX-License-Identifier: Apache-2.0
"""Arms: their servers are started or found, asked everything, measured and, if started, stopped."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from eval.commands.witness_elsewhere import OfElsewhere
from eval.commands.witnesses import OfStarted, Witness, Witnessed
from eval.config.schema import Arm, Config, Task, TaskName
from eval.load.question_client import Progress, RequestError
from eval.load.questions import Answers, ask
from eval.preflight.question_files import Files
from eval.report.arm_counts import rearrangements
from eval.results.folder import RunFolder
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
    answers = []
    try:
        for task in config.tasks_of(arm):
            answers.append(_answers(witness, task, files[task.name]))
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
    console.print(
        f"arm {arm.name}: {len(samples)} questions in {finished.seconds:.1f} s, "
        f"{rearrangements(config, arm, finished)}"
    )


def _answers(witness: Witness, task: Task, files: Files | None) -> Answers:
    server = witness.server
    return ask(
        server.model_name,
        task,
        server.url,
        server.headers,
        files,
        witness.folder / "ask.log",
        Progress(f"arm {witness.arm.name}, {task.name}", witness.says),
    )


def _summary(arm: Arm, answers: Sequence[Answers], seen: Witnessed) -> ArmRun:
    seconds = sum(task.finished - task.started for task in answers)
    tokens = seen.generated_tokens
    return ArmRun(
        **seen.activity.model_dump(),
        name=arm.name,
        tasks=[task.summary for task in answers],
        start_seconds=seen.start_seconds,
        asked_from=answers[0].started,
        asked_until=answers[-1].finished,
        logged_rearrangements=seen.logged_rearrangements,
        log_asked=seen.log_asked,
        seconds=seconds,
        tokens_per_second=None if tokens is None else tokens / seconds,
        command=seen.command,
        log=seen.log,
        elsewhere=seen.elsewhere,
    )
