# SPDX-License-Identifier: Apache-2.0
"""The commands below `vllm-eplb bench`."""

from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from vllm_eplb_plugin.bench.console import console_for_tables
from vllm_eplb_plugin.bench.options import Device, JsonFile, PlotFile, Rounds, Shapes
from vllm_eplb_plugin.bench.other_work import tell_load
from vllm_eplb_plugin.bench.planning_commands import plan, schedule
from vllm_eplb_plugin.bench.requirements import require_device, require_files, require_vllm
from vllm_eplb_plugin.bench.result import BenchError, Result, Row
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape, parse_shape
from vllm_eplb_plugin.bench.simulation_command import simulation
from vllm_eplb_plugin.bench.transfer_command import transfer
from vllm_eplb_plugin.processor import processor_name

bench = typer.Typer(help="Measure the installed vLLM's own code and the plugin's, in turns.")

bench.command()(plan)
bench.command()(schedule)
bench.command()(simulation)
bench.command()(transfer)


@bench.command()
def commit(
    shape: Shapes = None,
    device: Device = "cpu",
    rounds: Rounds = 100,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Make a placement visible: one layer, and a whole map."""

    def prepare() -> Callable[[Shape], list[Row]]:
        require_device(device)
        require_vllm("vllm.distributed.eplb.eplb_state")
        import torch

        from vllm_eplb_plugin.bench.commit import bench_commit

        return lambda shape: bench_commit(shape, rounds, torch.device(device))

    _run("commit", device, shape, rounds, json, plot, prepare)


@bench.command()
def step(
    shape: Shapes = None,
    device: Device = "cpu",
    rounds: Rounds = 1000,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Go through a step in which nothing is rearranged: what every token waits for."""

    def prepare() -> Callable[[Shape], list[Row]]:
        require_device(device)
        require_vllm("vllm.distributed.eplb.eplb_state")
        import torch

        from vllm_eplb_plugin.bench.step import bench_step

        return lambda shape: bench_step(shape, rounds, torch.device(device))

    _run("step", device, shape, rounds, json, plot, prepare)


def _run(
    command: str,
    device: str,
    names: list[str] | None,
    rounds: int,
    json: Path | None,
    plot: Path | None,
    prepare: Callable[[], Callable[[Shape], list[Row]]],
) -> None:
    """Measure every shape, then show and write.

    Args:
        command: Its name.
        device: Of torch.
        names: Shapes; None: all of `SHAPES`.
        rounds: Calls that are counted.
        json: Where to write everything.
        plot: Where to draw it.
        prepare: Looks whether there is what the command needs; returns what measures a shape.
    """
    console, load = console_for_tables(), tell_load()
    try:
        shapes = [parse_shape(name) for name in names] if names else list(SHAPES)
        require_files(json, plot)
        measure = prepare()
        import torch

        torch.set_num_threads(1)
        rows = [row for shape in shapes for row in measure(shape)]
        result = Result(command, device, rounds, rows, load)
        result.show(console)
        if json is not None:
            result.write_json(json)
        if plot is not None:
            result.write_plot(plot)
    except (BenchError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


@bench.command()
def telling(shape: Shapes = None, rounds: Rounds = 20) -> None:
    """Tell of a rearrangement: events at once, and as they are handed over."""
    console = Console(highlight=False, markup=False)
    tell_load()
    try:
        shapes = [parse_shape(name) for name in shape] if shape else list(SHAPES)
        require_vllm("vllm.distributed.parallel_state")
        from vllm_eplb_plugin.bench.telling import bench_telling

        waits = ("longest wait", "without")
        columns = ("ms, medians", "at once", "handed over", "events off", *waits, "recording")
        table = Table(*columns, title="vllm-eplb bench telling", title_justify="left")
        for one in shapes:
            row = bench_telling(one, rounds)
            calls = (row.at_once, row.handed_over, row.without_events)
            waits_of = (row.longest_wait, row.longest_wait_without)
            times = (*calls, *waits_of, row.recording)
            table.add_row(row.shape, *(f"{time:.3f}" for time in times))
    except (BenchError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    console.print(table)
    console.print(
        "handed over: what a rearrangement's calls take of the model's thread, and with events "
        "off; longest wait: for which it could not run while they are written, and without any; "
        "recording: in calls of one, with that of a plan; "
        f"{processor_name()}"
    )
