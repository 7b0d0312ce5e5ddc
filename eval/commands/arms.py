# SPDX-License-Identifier: Apache-2.0
"""Arms: their servers are started, asked everything, measured and stopped."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from eval.activity.counts import Activity, read_activity
from eval.activity.events import DELIVERY_SECONDS
from eval.activity.vllm_log import count_rearrangements
from eval.config.schema import Arm, Config, TaskName
from eval.load.question_client import RequestError
from eval.load.question_files import Files
from eval.load.questions import Answers, ask
from eval.results.folder import RunFolder
from eval.results.schema import ArmRun
from eval.secrets import SECRETS
from eval.serving.command import server_command
from eval.serving.failure.refusals import FAILED, STOPPED_ANSWERING
from eval.serving.server import Server, choose_port


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
    with ExitStack() as running:
        servers: list[_ArmServer] = []
        for arm in arms:
            taken = [one.port for one in servers]
            servers.append(_ArmServer(config, arm, executable, folder, taken))
        for one in servers:
            running.enter_context(one.server)
        timeout = config.serve.start_timeout
        ready = [
            one.server.wait_until_healthy(timeout, console, f"arm {one.arm.name}")
            for one in servers
        ]
        for one, seconds in zip(servers, ready, strict=True):
            console.print(f"arm {one.arm.name}: server ready after {seconds:.1f} s, asking")
            _ask(config, one, seconds, files, folder, console)


class _ArmServer:
    """The server of one arm, and where it and the harness write."""

    def __init__(
        self, config: Config, arm: Arm, executable: str, folder: RunFolder, taken: Sequence[int]
    ) -> None:
        self.arm = arm
        self.folder: Path = folder.new_arm_folder(arm.name)
        self.events = (self.folder / "events").absolute()
        self.port = choose_port(config.serve.port, taken)
        self.command = server_command(config, arm, executable, self.port, self.events)
        environment, log = config.serve.environment, self.folder / "server.log"
        self.server = Server(self.command, environment, log, self.port)


def _ask(
    config: Config,
    one: _ArmServer,
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
            )
            for task in config.tasks_of(arm)
        ]
    except RequestError as error:
        happened = f"arm {arm.name}: {error.happened}"
        if error.happened in (STOPPED_ANSWERING, FAILED):
            raise server.stopped_answering(happened, str(error)) from error
        raise server.failure(f"{happened}: {error}") from error
    server.require_own_answers(f"arm {arm.name}")
    logged = count_rearrangements(server.log, log_start)
    tokens = server.generated_tokens() - tokens
    if arm.eplb is not None:
        # A thread of each rank writes its events, a second later at most (docs/events.md).
        time.sleep(DELIVERY_SECONDS)
    evidence = read_activity(one.events, answers[0].started, answers[-1].finished)
    finished = _summary(arm, answers, evidence, logged, ready, tokens, server, one.command)
    samples = [sample for task in answers for sample in task.samples]
    folder.finish_arm(finished, samples)
    console.print(
        f"arm {arm.name}: {len(samples)} questions in {finished.seconds:.1f} s, "
        f"{finished.rearrangements} rearrangements"
    )


def _summary(
    arm: Arm,
    answers: Sequence[Answers],
    evidence: Activity,
    logged: int,
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
        logged_rearrangements=logged,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        command=SECRETS.hide_in_command(command),
        log=str(server.log),
    )
