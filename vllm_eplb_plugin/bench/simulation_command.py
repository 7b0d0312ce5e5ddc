# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench simulation`: policies over a long row of windows, and what simulating takes."""

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vllm_eplb_plugin.bench import options
from vllm_eplb_plugin.bench.other_work import tell_load
from vllm_eplb_plugin.bench.requirements import require_compiled_policy, require_files
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import parse_shape
from vllm_eplb_plugin.processor import processor_name

if TYPE_CHECKING:
    from vllm_eplb_plugin.recording.recording import Recording
    from vllm_eplb_plugin.simulation.result import Simulated


def simulation(
    shape: Annotated[
        str | None,
        typer.Option(help="As of bench plan. Without: DeepSeek-V3; of domains: as bench plan."),
    ] = None,
    load: Annotated[
        str, typer.Option(help="A synthetic load of bench plan, or domains (one after another).")
    ] = "medium",
    policy: Annotated[
        list[str] | None,
        typer.Option(help="As of simulate. Repeatable. Without: default, incremental."),
    ] = None,
    windows: Annotated[int, typer.Option(min=2, help="Windows, or of each domain.")] = 1000,
    tokens: options.Tokens = 1_000_000,
    expert_mb: options.ExpertMegabytes = 44.0,
    loads_from: options.LoadsFolder = None,
    html: Annotated[Path | None, typer.Option(help="Write the page of simulate here, too.")] = None,
) -> None:
    """Simulate policies on a made-up recording; say how long it takes, and with how much memory."""
    tell_load()
    try:
        require_files(html, None)
        require_compiled_policy()
        from vllm_eplb_plugin.bench.loads import as_recording
        from vllm_eplb_plugin.simulation.page import render_page

        chosen = None if shape is None else parse_shape(shape)
        of_expert = int(expert_mb * 1e6)
        if load == as_recording.DOMAINS:
            made = as_recording.recorded_domains(loads_from, chosen, windows, tokens, of_expert)
        else:
            chosen = chosen or parse_shape("DeepSeek-V3")
            made = [as_recording.drawn_recording(chosen, load, windows, tokens, of_expert)]
        results = _simulate(made, policy or ["default", "incremental"])
        if html is not None:
            html.write_text(render_page(results), encoding="utf-8")
    except (BenchError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _simulate(recordings: "list[Recording]", policies: list[str]) -> "list[Simulated]":
    from vllm_eplb_plugin.simulation.candidate import parse_candidate
    from vllm_eplb_plugin.simulation.combination import Grid
    from vllm_eplb_plugin.simulation.processes import Job, cores, play_all
    from vllm_eplb_plugin.simulation.result import simulated
    from vllm_eplb_plugin.simulation.tables import EXPLANATION, headline, tables

    started = time.perf_counter()
    grid = Grid([parse_candidate(name) for name in policies])
    jobs = [
        Job(number, combination)
        for number, one in enumerate(recordings)
        for combination in grid.combinations(one)[0]
    ]
    played = dict(play_all(recordings, jobs))
    results = [
        simulated(one, [played[at] for at, job in enumerate(jobs) if job.recording == number])
        for number, one in enumerate(recordings)
    ]
    seconds = time.perf_counter() - started
    console = Console(highlight=False, markup=False)
    for one in results:
        console.print(headline(one), *tables(one), sep="\n")
    console.print(EXPLANATION)
    own, each = (
        resource.getrusage(who).ru_maxrss / 1024**2
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    processes = min(cores(), len(jobs))
    console.print(
        f"simulated in {seconds:.1f} s by {processes} processes; memory {own:.2f} GiB here, where "
        f"the loads were drawn, and up to {each:.2f} GiB in each, which share the recording; "
        f"{processor_name()}"
    )
    return results
