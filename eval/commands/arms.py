# SPDX-License-Identifier: Apache-2.0
"""Arms: their servers are started, asked everything, measured and stopped."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console

from eval.activity.counts import read_activity
from eval.activity.events import DELIVERY_SECONDS
from eval.activity.totals import Activity
from eval.activity.vllm_log import LogTail, count_rearrangements
from eval.commands.stopping import batches_of, decision, in_words, moved_enough
from eval.config.schema import BASELINE, Arm, Config, Task, TaskName
from eval.judging.arms import plural
from eval.load.batches import Asked
from eval.load.question_client import Progress, RequestError
from eval.load.questions import Answers, ask
from eval.preflight.question_files import Files
from eval.report.arm_counts import rearrangements
from eval.results.folder import RunFolder
from eval.results.samples import Sample
from eval.results.schema import ArmRun
from eval.secrets import SECRETS
from eval.serving.failure.refusals import FAILED, STOPPED_ANSWERING
from eval.serving.served_arm import ServedArm, serve


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
    off = [] if arm.name == BASELINE else folder.samples(BASELINE)
    answers: list[Answers] = []

    def moved(asked: Asked) -> bool:
        started = answers[0].started if answers else asked.started
        log_asked = (log_start, server.log.stat().st_size)
        so_far = _so_far(one, started, asked.finished, log_asked)
        return moved_enough(config, arm, one.folder, so_far)

    try:
        for task in config.tasks_of(arm):
            found = ask(
                server.model_name,
                task,
                server.url,
                server.headers,
                files[task.name],
                one.folder / "ask.log",
                _progress(one, task),
                batches_of(config, arm, task, off, moved),
            )
            answers.append(_with_decision(config, arm, task, off, found))
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
    finished = _summary(one, answers, evidence, log_asked, ready, tokens)
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


def _progress(one: ServedArm, task: Task) -> Progress:
    label = f"{one.label}, {task.name}"
    if one.arm.eplb is None:
        return Progress(label, lambda: "")
    seen = LogTail(one.server.log, one.server.log.stat().st_size)
    return Progress(label, lambda: plural(seen.rearrangements(), "rearrangement"))


def _summary(
    one: ServedArm,
    answers: Sequence[Answers],
    evidence: Activity,
    log_asked: tuple[int, int],
    ready: float,
    tokens: float,
) -> ArmRun:
    seconds = sum(task.finished - task.started for task in answers)
    whole = {
        **dict(evidence),
        "tasks": [task.summary for task in answers],
        "start_seconds": ready,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
    }
    until = answers[-1].finished
    return _so_far(one, answers[0].started, until, log_asked).model_copy(update=whole)


def _so_far(one: ServedArm, started: float, until: float, log_asked: tuple[int, int]) -> ArmRun:
    """An arm between two times, without what its answers and its events say."""
    return ArmRun(
        name=one.arm.name,
        tasks=[],
        start_seconds=0,
        asked_from=started,
        asked_until=until,
        logged_rearrangements=count_rearrangements(one.server.log, *log_asked),
        log_asked=log_asked,
        seconds=0,
        tokens_per_second=0,
        command=SECRETS.hide_in_command(one.command),
        log=str(one.server.log),
    )
