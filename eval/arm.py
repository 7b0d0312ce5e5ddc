# SPDX-License-Identifier: Apache-2.0
"""One arm: its server is started, asked everything, measured and stopped."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from eval.ask import Answers, RequestError, ask
from eval.command import server_command
from eval.config import Arm, Config, TaskName
from eval.dataset import Files
from eval.events import Evidence, read_evidence
from eval.folder import RunFolder
from eval.result import ArmRun
from eval.server import Server, choose_port
from eval.server_log import count_rearrangements


def run_arm(
    config: Config,
    arm: Arm,
    executable: str,
    files: Mapping[TaskName, Files | None],
    folder: RunFolder,
    console: Console,
) -> None:
    """Run one arm and keep what it gave in its folder.

    Raises:
        EvaluationError: The server did not start or stopped answering.
    """
    here = folder.new_arm_folder(arm.name)
    events = (here / "events").absolute()
    port = choose_port(config.serve.port)
    command = server_command(config, arm, executable, port, events)
    server = Server(command, config.serve.environment, here / "server.log", port)
    with server:
        ready = server.wait_until_healthy(config.serve.start_timeout, console, f"arm {arm.name}")
        console.print(f"arm {arm.name}: server ready after {ready:.1f} s, asking")
        tokens = server.generated_tokens()
        log_start = server.log.stat().st_size
        try:
            answers = [
                ask(config.model, task, server.url, files[task.name], here / "ask.log")
                for task in config.tasks
            ]
        except RequestError as error:
            stopped = f"arm {arm.name}: the server stopped answering: {error}"
            raise server.failure(stopped) from error
        logged = count_rearrangements(server.log, log_start)
        tokens = server.generated_tokens() - tokens
    evidence = read_evidence(events, answers[0].started, answers[-1].finished)
    finished = _summary(arm, answers, evidence, logged, ready, tokens, server, command)
    samples = [sample for task in answers for sample in task.samples]
    folder.finish_arm(finished, samples)
    console.print(
        f"arm {arm.name}: {len(samples)} questions in {finished.seconds:.1f} s, "
        f"{finished.rearrangements} rearrangements"
    )


def _summary(
    arm: Arm,
    answers: Sequence[Answers],
    evidence: Evidence,
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
        command=command,
        log=str(server.log),
    )
