# SPDX-License-Identifier: Apache-2.0
"""One arm of a configuration, served and kept under load."""

import time
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from eval.activity.counts import read_activity
from eval.activity.finished import finished_after
from eval.activity.vllm_log import count_rearrangements
from eval.config.schema import Config
from eval.load.churn import Load, keep_asking
from eval.preflight.look import preflight
from eval.results.machine import installed_versions, this_machine
from eval.results.memory import MemoryProbe, with_rearrangements
from eval.results.stress import StressResult, growths, judge, thinned
from eval.serving.command import server_command
from eval.serving.server import Server, choose_port


def stress(
    config: Config,
    name: str,
    seconds: float,
    streams: int,
    hang_seconds: float,
    least_rearrangements: int,
    folder: Path,
    console: Console,
) -> StressResult:
    """Serve the arm ``name`` and ask without a pause.

    Args:
        config: Whose arm it is.
        name: Of the arm.
        seconds: Of load.
        streams: Completions at the same time.
        hang_seconds: Without any token, after which the server counts as hanging.
        least_rearrangements: That have to finish.
        folder: For its log and its events; what an earlier run left there is removed.
        console: For what goes on.

    Raises:
        EvaluationError: Something is missing, or the server did not start.
    """
    # The load is made up.
    ready = preflight(config, console, questions=False)
    ready.require_everything()
    arm = next(arm for arm in config.arms if arm.name == name)
    events = (folder / "events").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for file in (folder / "server.log", folder / "stress.json", *events.glob("rank*.jsonl")):
        file.unlink(missing_ok=True)
    port = choose_port(config.serve.port)
    on_gpus = ready.installation is None or not ready.installation.on_cpu
    command = server_command(config, arm, ready.executable, port, events)
    server = Server(command, config.serve.environment, folder / "server.log", port)
    with server:
        started_after = server.wait_until_healthy(config.serve.start_timeout, console, name)
        console.print(f"{name}: server ready after {started_after:.1f} s, asking")
        probe, log_start = MemoryProbe(server.session, on_gpus), server.log.stat().st_size
        clock, started = time.monotonic(), datetime.now(timezone.utc)

        def watch(load: Load) -> None:
            passed = time.monotonic() - clock
            probe.sample(passed)
            status.update(f"{passed:.0f} s of {seconds:.0f} s, {load.requests} completions")

        with console.status("asking") as status:
            load = keep_asking(
                server.url, config.model, streams, seconds, hang_seconds, watch, server.headers
            )
        asked = time.monotonic() - clock
        if load.problem is not None:
            stopped = "the server stopped answering"
            load.problem = str(server.stopped_answering(stopped, load.problem))
        logged = count_rearrangements(server.log, log_start)
    first, last = started.timestamp(), started.timestamp() + asked
    settings = config.plugin_settings(arm)
    plugin = arm.eplb is not None and settings is not None and settings.get("enabled") is not False
    samples = thinned(probe.samples)
    if plugin:
        samples = with_rearrangements(samples, finished_after(events, first, last))
    gpu_growth, host_growth = growths(probe.samples)
    result = StressResult(
        name=config.name,
        arm=name,
        started=started,
        seconds=round(asked, 1),
        streams=streams,
        requests=load.requests,
        tokens=load.tokens,
        problem=load.problem,
        evidence=read_activity(events, first, last),
        ranks=config.serve.ranks,
        logged_rearrangements=logged,
        memory=samples,
        memory_of_processes=probe.of_processes,
        gpu_growth_mib=gpu_growth,
        host_growth_mib=host_growth,
        machine=this_machine(),
        versions=installed_versions(ready.served),
        config_sha256=config.sha256(),
        # As anyone would type it: without this machine's paths.
        command=["vllm", *server_command(config, arm, "", port, Path("events"))[1:]],
    )
    checked = plugin and settings is not None and settings.get("check_weights") is True
    least = least_rearrangements if arm.eplb is not None else 0
    result.rules = list(judge(result, plugin, checked, least, hang_seconds))
    return result
