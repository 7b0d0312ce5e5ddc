# SPDX-License-Identifier: Apache-2.0
"""One arm: its server is started, asked everything, measured and stopped."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from eval.ask import Answers, RequestError, ask
from eval.command import server_command
from eval.config import Arm, Config
from eval.events import Evidence, read_evidence
from eval.folder import RunFolder
from eval.result import ArmRun
from eval.server import Server, choose_port


def run_arm(
    config: Config,
    arm: Arm,
    executable: str,
    files: Mapping[str, Path] | None,
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
        try:
            answers = ask(config, server.url, files, here / "ask.log")
        except RequestError as error:
            stopped = f"arm {arm.name}: the server stopped answering: {error}"
            raise server.failure(stopped) from error
        tokens = server.generated_tokens() - tokens
    evidence = read_evidence(events, answers.started, answers.finished)
    finished = _summary(arm, answers, evidence, ready, tokens, server, command)
    folder.finish_arm(finished, answers.samples)
    console.print(
        f"arm {arm.name}: {finished.questions} questions in {finished.seconds:.1f} s, "
        f"{finished.rearrangements} rearrangements"
    )


def _summary(
    arm: Arm,
    answers: Answers,
    evidence: Evidence,
    ready: float,
    tokens: float,
    server: Server,
    command: list[str],
) -> ArmRun:
    seconds = answers.finished - answers.started
    return ArmRun(
        **evidence.model_dump(),
        name=arm.name,
        questions=len(answers.samples),
        task_hashes=answers.task_hashes,
        task_version=answers.task_version,
        accuracy=answers.accuracy,
        accuracy_stderr=answers.accuracy_stderr,
        accuracy_flexible=answers.accuracy_flexible,
        accuracy_flexible_stderr=answers.accuracy_flexible_stderr,
        start_seconds=ready,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        command=command,
        log=str(server.log),
    )
