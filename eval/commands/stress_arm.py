# SPDX-License-Identifier: Apache-2.0
"""One arm, served and kept under load."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from eval.activity.counts import read_activity
from eval.activity.finished import finished_after
from eval.activity.vllm_log import count_rearrangements
from eval.commands.soak_acts import acts_on, keep_experts, with_reloads
from eval.commands.stress_fault import FaultRun, ends, with_outcomes
from eval.config.schema import Arm, Config
from eval.load.churn import Load, keep_asking
from eval.load.soak import Soak, soak
from eval.results.folder import RunFolder
from eval.results.memory import MemoryUse, with_rearrangements
from eval.results.schema import ArmRun
from eval.results.stress import LoadResult, StressWorkload
from eval.results.trial import Trial
from eval.secrets import SECRETS
from eval.serving.memory_probe import MemoryProbe
from eval.serving.served_arm import ServedArm, serve
from eval.serving.small_disk import small_disk

_SMALL_KIB = 4096
_SHORT = 2048
"""Tokens of the longest request where the configuration does not say what the model can take."""


def load_arm(
    config: Config,
    arm: Arm,
    workload: StressWorkload,
    executable: str,
    on_gpus: bool,
    folder: RunFolder,
    console: Console,
) -> ArmRun:
    """Serve an arm and ask without a pause.

    Args:
        config: Whose arm it is.
        arm: Of these.
        workload: How it is kept busy.
        executable: The ``vllm`` that serves.
        on_gpus: Whether there is memory of GPUs to look at.
        folder: Gets a folder for the arm, for its log and its events.
        console: For what goes on.

    Raises:
        EvaluationError: The server did not start, or its events cannot be read.
    """
    arms = [(arm, folder.new_arm_folder(arm.name))]
    if workload.soak:
        config = with_reloads(config)
    with _disk(workload, arms[0][1]), serve(config, arms, executable, console) as (one,):
        console.print(f"{one.label}: server ready after {one.ready_after:.1f} s, asking")
        probe, log_start = MemoryProbe(one.server.session, on_gpus), one.server.log.stat().st_size
        started, clock = datetime.now(timezone.utc).timestamp(), time.monotonic()
        load, trial = _ask(config, one, workload, probe, console)
        asked = time.monotonic() - clock
        if load.problem is not None and not ends(workload):
            stopped = "the server stopped answering"
            load.problem = str(one.server.stopped_answering(stopped, load.problem))
        logged = count_rearrangements(one.server.log, log_start)
    # Read when the server has ended: the last events are written a moment after they happen.
    until = started + asked
    run = ArmRun(
        **read_activity(one.events, started, until).model_dump(),
        name=arm.name,
        tasks=[],
        start_seconds=one.ready_after,
        asked_from=started,
        asked_until=until,
        logged_rearrangements=logged,
        seconds=asked,
        tokens_per_second=load.tokens / asked,
        command=SECRETS.hide_in_command(one.command),
        log=str(one.server.log),
        load=LoadResult(requests=load.requests, tokens=load.tokens, problem=load.problem),
        memory=MemoryUse.of(probe.samples, probe.of_processes),
        trial=trial,
    )
    return _with_events(run, config, arm, one)


def _disk(workload: StressWorkload, folder: Path) -> AbstractContextManager[None]:
    """On which its events are written."""
    if workload.fault == "events_disk_full":
        return small_disk(folder / "events", _SMALL_KIB)
    return nullcontext()


def _ask(
    config: Config, one: ServedArm, workload: StressWorkload, probe: MemoryProbe, console: Console
) -> tuple[Load, Trial | None]:
    began = time.monotonic()

    def watch(load: Load) -> None:
        passed = time.monotonic() - began
        probe.sample(passed)
        status.update(f"{passed:.0f} s of {workload.seconds:.0f} s, {load.requests} completions")

    with console.status(f"{one.label}: asking for {workload.seconds:.0f} s") as status:
        if workload.soak:
            return _soak(config, one, workload, watch)
        if workload.fault is not None:
            plugin = config.plugin_settings(one.arm) or {}
            return FaultRun(one, workload, plugin).ask(watch)
        load = keep_asking(
            one.server.url,
            one.server.model_name,
            workload.streams,
            workload.seconds,
            workload.hang_seconds,
            watch,
            one.server.headers,
        )
        return load, None


def _soak(
    config: Config, one: ServedArm, workload: StressWorkload, watch: Callable[[Load], None]
) -> tuple[Load, Trial]:
    longest = config.serve.option("max-model-len")
    how = Soak(
        streams=workload.streams,
        seconds=workload.seconds,
        hang_seconds=workload.hang_seconds,
        limit=longest if isinstance(longest, int) else _SHORT,
        ranks=config.serve.degree("data-parallel-size"),
        acts=acts_on(one, config.serve.ranks, keep_experts(one)),
    )
    return soak(one.server.url, one.server.model_name, how, watch, one.server.headers)


def _with_events(run: ArmRun, config: Config, arm: Arm, one: ServedArm) -> ArmRun:
    """The same, with what events tell: how often experts had moved by when, and since a fault."""
    if run.trial is not None:
        run = run.model_copy(update={"trial": with_outcomes(run.trial, one.events)})
    if run.memory is None or arm.eplb is None or config.is_stock(arm):
        return run
    finished = finished_after(one.events, run.asked_from, run.asked_until)
    samples = with_rearrangements(run.memory.samples, finished)
    memory = run.memory.model_copy(update={"samples": samples})
    return run.model_copy(update={"memory": memory})
