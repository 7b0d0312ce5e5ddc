# SPDX-License-Identifier: Apache-2.0
"""Servers, started together or one by one, asked and measured one by one."""

import time
from collections.abc import Iterator, Sequence

from rich.console import Console

from eval.activity.counts import read_activity
from eval.activity.events import DELIVERY_SECONDS
from eval.activity.totals import Activity
from eval.activity.vllm_log import count_rearrangements
from eval.commands.answering import told_why
from eval.commands.latency_times import FIRST_TOKENS, times_of_steady, times_of_turns
from eval.config.schema import Arm, Config
from eval.load.domains import prompts_in_turns
from eval.load.streams import Stream, stream_together
from eval.load.turns import stream_in_turns
from eval.results.folder import RunFolder
from eval.results.latency import LatencyWorkload
from eval.results.schema import ArmRun
from eval.secrets import SECRETS
from eval.serving.memory import gpu_memory_of_devices_mib
from eval.serving.served_arm import ServedArm, serve
from eval.serving.server import Server


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
        # Events tell what moved; a steady load does without: nothing but the model and its EPLB
        # is to be timed.
        tells, executable = workload.load != "steady", config.serve.executable or ""
        with serve(config, together, executable, console, tells) as served:
            for one in served:
                console.print(f"{one.label}: server ready after {one.ready_after:.1f} s, streaming")
                alone = others if len(served) == 1 else None
                yield _measure(one, workload, alone)


def _measure(one: ServedArm, workload: LatencyWorkload, others_mib: int | None) -> ArmRun:
    server, steps = one.server, one.folder / "steps"
    if workload.load == "steady":
        _stream(one, workload.streams, FIRST_TOKENS)
        log_start = server.log.stat().st_size
        streams = _stream(one, workload.streams, workload.tokens)
        began = count_rearrangements(server.log, log_start)
        times, told = times_of_steady(streams, steps), Activity()
    else:
        _ask_in_turns(one, workload, workload.streams, FIRST_TOKENS)
        log_start = server.log.stat().st_size
        streams = _ask_in_turns(one, workload, workload.completions or 1, workload.tokens)
        began = count_rearrangements(server.log, log_start)
        # A thread of each rank writes its events, a second later at most (docs/events.md).
        time.sleep(DELIVERY_SECONDS)
        times = times_of_turns(streams, steps, began)
        told = read_activity(one.events, streams[0].asked, max(one.ended for one in streams))
    asked_from, asked_until = streams[0].asked, max(stream.ended for stream in streams)
    generated = sum(stream.generated for stream in streams)
    memory = _gpu_memory_mib(server, others_mib)
    return ArmRun(
        **told.model_dump(),
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
        latency=times.model_copy(update={"gpu_memory_mib": memory}),
    )


def _stream(one: ServedArm, streams: int, tokens: int) -> list[Stream]:
    server = one.server
    with told_why(one):
        return stream_together(server.url, server.model_name, streams, tokens, server.headers)


def _ask_in_turns(
    one: ServedArm, workload: LatencyWorkload, completions: int, tokens: int
) -> list[Stream]:
    server = one.server
    with told_why(one):
        return stream_in_turns(
            server.url,
            server.model_name,
            prompts_in_turns(workload.shape.vocabulary, workload.turn or workload.streams),
            completions,
            workload.streams,
            tokens,
            workload.most_seconds,
            server.headers,
        )


def _gpu_memory_mib(server: Server, others_mib: int | None) -> int | None:
    """What its processes have; inside a container the driver may name none.

    Then what the GPUs have more than ``others_mib``, if the server is the only one.
    """
    own = server.gpu_memory_mib()
    if own is not None or others_mib is None:
        return own
    now = gpu_memory_of_devices_mib()
    return None if now is None else now - others_mib
