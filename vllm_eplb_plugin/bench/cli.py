# SPDX-License-Identifier: Apache-2.0
"""The commands `vllm-eplb bench commit` and `vllm-eplb bench plan`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from vllm_eplb_plugin.bench.commit import bench_commit
from vllm_eplb_plugin.bench.plan import bench_plan
from vllm_eplb_plugin.bench.result import BenchError, Result, Row
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape, parse_shape

bench = typer.Typer(help="Measure the installed vLLM's own code and the plugin's, in turns.")

Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="LAYERSxLOGICAL+REDUNDANT[/GROUPSxNODESxRANKS], or a model's name; repeatable. "
        f"Without: {', '.join(shape.name for shape in SHAPES)}.",
    ),
]
Rounds = Annotated[int, typer.Option(min=2, help="Calls that are counted.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Write a plot (.png) here, too.")]


@bench.command()
def commit(
    shape: Shapes = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    rounds: Rounds = 100,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Make a placement visible: one layer, and a whole map."""
    where = torch.device(device)
    _run("commit", str(where), shape, rounds, json, plot, lambda s: bench_commit(s, rounds, where))


@bench.command()
def plan(
    shape: Shapes = None, rounds: Rounds = 30, json: JsonFile = None, plot: PlotFile = None
) -> None:
    """Plan a placement from a load, on one core."""
    _run("plan", "cpu", shape, rounds, json, plot, lambda s: bench_plan(s, rounds))


def _run(
    command: str,
    device: str,
    names: list[str] | None,
    rounds: int,
    json: Path | None,
    plot: Path | None,
    measure: Callable[[Shape], list[Row]],
) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 190)
    try:
        shapes = [parse_shape(name) for name in names] if names else list(SHAPES)
        for file in (json, plot):
            if file is not None and not file.parent.is_dir():
                raise BenchError(f"{file} cannot be written: there is no folder {file.parent}")
        torch.set_num_threads(1)
        rows = [row for shape in shapes for row in measure(shape)]
        result = Result(command, device, rounds, rows)
        result.show(console)
        if json is not None:
            result.write_json(json)
        if plot is not None:
            result.write_plot(plot)
    except (BenchError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
