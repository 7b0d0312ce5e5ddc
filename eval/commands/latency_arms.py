# SPDX-License-Identifier: Apache-2.0
"""Servers, started together or one by one, asked and measured one by one."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from eval.activity.vllm_log import count_rearrangements
from eval.config.schema import Arm, Config
from eval.errors import ServerError
from eval.load.completions import CompletionError
from eval.load.streams import Stream, stream_together
from eval.results.folder import RunFolder
from eval.results.latency import Distribution, LatencyTimes, LatencyWorkload
from eval.results.schema import ArmRun
from eval.secrets import SECRETS
from eval.serving.memory import gpu_memory_of_devices_mib
from eval.serving.served_arm import ServedArm, serve
from eval.serving.server import Server

FIRST_TOKENS = 32
"""Of each completion, which are not counted: prompts are read meanwhile."""


def measure_arms(
    config: Config,
    arms: Sequence[Arm],
    workload: LatencyWorkload,
    folder: RunFolder,
    console: Console,
) -> Iterator[ArmRun]:
    """Serve arms of ``config`` and stream completions from one after another.

    Args:
        config: What is served; names the ``vllm``.
        arms: Which of it.
        workload: What is asked, and how many servers run at the same time; all but one of them
            have nothing to do.
        folder: Gets a folder for each arm, for its log and its step times.
        console: For what goes on.

    Raises:
        EvaluationError: A server did not start or stopped answering.
    """
    # Before any server: the memory of one that was just stopped is not free at once.
    others = gpu_memory_of_devices_mib() if workload.gpus else None
    for first in range(0, len(arms), workload.servers_at_once):
        together = [
            (arm, folder.new_arm_folder(arm.name))
            for arm in arms[first : first + workload.servers_at_once]
        ]
        # Without events: nothing but the model and its EPLB is to be timed.
        with serve(config, together, config.serve.executable or "", console, tells=False) as served:
            for one in served:
                console.print(f"{one.label}: server ready after {one.ready_after:.1f} s, streaming")
                alone = others if len(served) == 1 else None
                yield _measure(one, workload, alone)


def _measure(one: ServedArm, workload: LatencyWorkload, others_mib: int | None) -> ArmRun:
    server = one.server
    _stream(one, workload.streams, FIRST_TOKENS)
    log_start = server.log.stat().st_size
    streams = _stream(one, workload.streams, workload.tokens)
    began = count_rearrangements(server.log, log_start)
    asked_from, asked_until = streams[0].asked, max(stream.ended for stream in streams)
    generated = sum(stream.generated for stream in streams)
    return ArmRun(
        name=one.arm.name,
        tasks=[],
        start_seconds=round(one.ready_after, 1),
        asked_from=asked_from,
        asked_until=asked_until,
        logged_rearrangements=began,
        seconds=asked_until - asked_from,
        tokens_per_second=generated / (asked_until - asked_from),
        command=SECRETS.hide_in_command(one.command),
        log=str(server.log),
        latency=_times(streams, one.folder / "steps", _gpu_memory_mib(server, others_mib)),
    )


def _stream(one: ServedArm, streams: int, tokens: int) -> list[Stream]:
    try:
        server = one.server
        return stream_together(server.url, server.model_name, streams, tokens, server.headers)
    except CompletionError as error:
        stopped = f"{one.label}: the server stopped answering"
        raise one.server.stopped_answering(stopped, str(error)) from error


def _times(streams: Sequence[Stream], steps: Path, gpu_memory_mib: int | None) -> LatencyTimes:
    counted = [stream.arrived[FIRST_TOKENS:] for stream in streams]
    between = [after - before for times in counted for before, after in pairwise(times)]
    inside = list(_steps_inside(steps, counted))
    rearranging = [step["seconds"] for step in inside if step["rearranging"]]
    slow = (np.array(between) > 2 * np.median(between)).mean() if between else 0.0
    return LatencyTimes(
        rearranging_steps=round(len(rearranging) / len(inside), 4) if inside else 0.0,
        state_manager=Distribution.of(rearranging),
        between_tokens=Distribution.of(between),
        slow=round(float(slow), 6),
        gpu_memory_mib=gpu_memory_mib,
        completions=[stream.generated for stream in streams],
    )


def _steps_inside(folder: Path, counted: Sequence[Sequence[float]]) -> Iterator[dict[str, Any]]:
    """Engine steps while every completion was under way; none if one did not get that far."""
    if not all(counted):
        return
    start, end = max(times[0] for times in counted), min(times[-1] for times in counted)
    for file in sorted(folder.glob("steps*.jsonl")):
        # The last line may be one that is still being written.
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1], 1):
            try:
                step = json.loads(line)
                inside = start <= step["time"] <= end
            except (ValueError, TypeError, KeyError) as error:
                raise ServerError(f"{file}, line {number} is no step time: {error!r}") from error
            if inside:
                yield step


def _gpu_memory_mib(server: Server, others_mib: int | None) -> int | None:
    """What its processes have; inside a container the driver may name none.

    Then what the GPUs have more than ``others_mib``, if the server is the only one.
    """
    own = server.gpu_memory_mib()
    if own is not None or others_mib is None:
        return own
    now = gpu_memory_of_devices_mib()
    return None if now is None else now - others_mib
