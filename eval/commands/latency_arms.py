# SPDX-License-Identifier: Apache-2.0
"""Servers, started together or one by one, asked and measured one by one."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from eval.activity.vllm_log import count_rearrangements
from eval.commands.latency_setup import ArmName, Setup, arm_command
from eval.errors import ServerError
from eval.load.streams import stream_together
from eval.results.latency import ArmLatency, Distribution
from eval.serving.memory import gpu_memory_of_devices_mib
from eval.serving.server import Server, choose_port

FIRST_TOKENS = 32
"""Of each completion, which are not counted: prompts are read meanwhile."""


class _ArmServer:
    """The server of one arm, with what it writes in a folder of its own."""

    def __init__(self, name: ArmName, setup: Setup, folder: Path, taken: Sequence[int]) -> None:
        self.name = name
        self.setup = setup
        self.steps = (folder / "steps").absolute()
        self.port = choose_port(None, taken)
        command = arm_command(name, setup, self.port, self.steps)
        self.server = Server(command, setup.environment(), folder / "server.log", self.port)


def measure_arms(
    names: Sequence[ArmName], setup: Setup, folder: Path, at_once: int, console: Console
) -> Iterator[ArmLatency]:
    """Serve the arms and stream completions from one after another.

    Args:
        names: Which.
        setup: What is served and asked.
        folder: Has one for each arm, for its log and its step times.
        at_once: So many servers run at the same time; all but one of them have nothing to do.
        console: For what goes on.

    Raises:
        EvaluationError: A server did not start or stopped answering.
    """
    # Before any server: the memory of one that was just stopped is not free at once.
    others = gpu_memory_of_devices_mib() if setup.gpus else None
    for first in range(0, len(names), at_once):
        with ExitStack() as running:
            arms: list[_ArmServer] = []
            for name in names[first : first + at_once]:
                taken = [arm.port for arm in arms]
                arms.append(_ArmServer(name, setup, _emptied(folder / name.value), taken))
                running.enter_context(arms[-1].server)
            started = [arm.server.wait_until_healthy(1200, console, arm.name.value) for arm in arms]
            for arm, seconds in zip(arms, started, strict=True):
                console.print(f"{arm.name.value}: server ready after {seconds:.1f} s, streaming")
                yield _measure(arm, seconds, others if len(arms) == 1 else None)


def _measure(arm: _ArmServer, start_seconds: float, others_mib: int | None) -> ArmLatency:
    setup, server = arm.setup, arm.server
    _stream(arm, FIRST_TOKENS)
    log_start = server.log.stat().st_size
    arrived = _stream(arm, setup.tokens)
    rearrangements = count_rearrangements(server.log, log_start)
    counted = [times[FIRST_TOKENS:] for times in arrived]
    between = [after - before for times in counted for before, after in pairwise(times)]
    start, end = max(times[0] for times in counted), min(times[-1] for times in counted)
    inside = [step for step in _steps(arm.steps) if start <= step["time"] <= end]
    rearranging = [step["seconds"] for step in inside if step["rearranging"]]
    tokens = Distribution.of(between)
    assert tokens is not None
    return ArmLatency(
        name=arm.name.value,
        start_seconds=round(start_seconds, 1),
        rearrangements=rearrangements,
        rearranging_steps=round(len(rearranging) / len(inside), 4) if inside else 0.0,
        state_manager=Distribution.of(rearranging),
        between_tokens=tokens,
        slow=round(float((np.array(between) > 2 * np.median(between)).mean()), 6),
        gpu_memory_mib=_gpu_memory_mib(server, others_mib),
        # As anyone would type it: without this machine's paths.
        command=["vllm", *arm_command(arm.name, setup, arm.port, Path("steps"))[1:]],
    )


def _stream(arm: _ArmServer, tokens: int) -> list[list[float]]:
    try:
        model, headers = str(arm.setup.model), arm.server.headers
        return stream_together(arm.server.url, model, arm.setup.streams, tokens, headers)
    except ServerError as error:
        stopped = f"{arm.name.value}: the server stopped answering"
        raise arm.server.stopped_answering(stopped, str(error)) from error


def _gpu_memory_mib(server: Server, others_mib: int | None) -> int | None:
    """What its processes have; inside a container the driver may name none.

    Then what the GPUs have more than ``others_mib``, if the server is the only one.
    """
    own = server.gpu_memory_mib()
    if own is not None or others_mib is None:
        return own
    now = gpu_memory_of_devices_mib()
    return None if now is None else now - others_mib


def _emptied(folder: Path) -> Path:
    """What an earlier run left would be counted with this one's."""
    for file in [folder / "server.log", *folder.glob("steps/steps*.jsonl")]:
        file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _steps(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("steps*.jsonl")):
        lines: Sequence[str] = file.read_text(encoding="utf-8").split("\n")
        yield from (json.loads(line) for line in lines[:-1])
