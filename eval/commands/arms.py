# SPDX-License-Identifier: Apache-2.0
"""Arms: their servers are started, asked everything, measured and stopped."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console

from eval.activity.counts import read_activity
from eval.activity.events import DELIVERY_SECONDS
from eval.activity.totals import Activity
from eval.activity.vllm_log import LogTail, count_rearrangements
from eval.config.schema import Arm, Config, Task, TaskName
from eval.judging.arms import plural
from eval.load.question_client import Progress, RequestError
from eval.load.questions import Answers, ask
from eval.preflight.question_files import Files
from eval.report.arm_counts import rearrangements
from eval.results.folder import RunFolder
from eval.results.schema import ArmRun
from eval.secrets import SECRETS
from eval.serving.failure.refusals import FAILED, STOPPED_ANSWERING
from eval.serving.served_arm import ServedArm, serve
from eval.serving.server import Server


def run_arms(
    config: Config,
    arms: Sequence[Arm],
    executable: str,
    files: Mapping[TaskName, Files | None],
    folder: RunFolder,
    console: Console,
) -> None:
    """Start the servers of some arms together, ask one after another, keep what they gave.

    Raises:
        EvaluationError: A server did not start or stopped answering.
    """
    folders = [(arm, folder.new_arm_folder(arm.name)) for arm in arms]
    with serve(config, folders, executable, console) as servers:
        for one in servers:
            ready = one.ready_after
            console.print(f"{one.label}: server ready after {ready:.1f} s, asking")
            _ask(config, one, ready, files, folder, console)


def _ask(
    config: Config,
    one: ServedArm,
    ready: float,
    files: Mapping[TaskName, Files | None],
    folder: RunFolder,
    console: Console,
) -> None:
    arm, server = one.arm, one.server
    tokens = server.generated_tokens()
    log_start = server.log.stat().st_size
    try:
        answers = [
            ask(
                server.model_name,
                task,
                server.url,
                server.headers,
                files[task.name],
                one.folder / "ask.log",
                _progress(one, task),
            )
            for task in config.tasks_of(arm)
        ]
    except RequestError as error:
        happened = f"arm {arm.name}: {error.happened}"
        if error.happened in (STOPPED_ANSWERING, FAILED):
            raise server.stopped_answering(happened, str(error)) from error
        raise server.failure(f"{happened}: {error}") from error
    server.require_own_answers(f"arm {arm.name}")
    log_asked = (log_start, server.log.stat().st_size)
    tokens = server.generated_tokens() - tokens
    if arm.eplb is not None:
        # A thread of each rank writes its events, a second later at most (docs/events.md).
        time.sleep(DELIVERY_SECONDS)
    evidence = read_activity(one.events, answers[0].started, answers[-1].finished)
    finished = _summary(arm, answers, evidence, log_asked, ready, tokens, server, one.command)
    samples = [sample for task in answers for sample in task.samples]
    folder.finish_arm(finished, samples)
    console.print(
        f"arm {arm.name}: {len(samples)} questions in {finished.seconds:.1f} s, "
        f"{rearrangements(config, arm, finished)}"
    )


def _progress(one: ServedArm, task: Task) -> Progress:
    label = f"{one.label}, {task.name}"
    if one.arm.eplb is None:
        return Progress(label, lambda: "")
    seen = LogTail(one.server.log, one.server.log.stat().st_size)
    return Progress(label, lambda: plural(seen.rearrangements(), "rearrangement"))


def _summary(
    arm: Arm,
    answers: Sequence[Answers],
    evidence: Activity,
    log_asked: tuple[int, int],
    ready: float,
    tokens: float,
    server: Server,
    command: list[str],
) -> ArmRun:
    seconds = sum(task.finished - task.started for task in answers)
    return ArmRun(
        **evidence.model_dump(),
        name=arm.name,
        tasks=[task.summary for task in answers],
        start_seconds=ready,
        asked_from=answers[0].started,
        asked_until=answers[-1].finished,
        logged_rearrangements=count_rearrangements(server.log, *log_asked),
        log_asked=log_asked,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        command=SECRETS.hide_in_command(command),
        log=str(server.log),
    )
