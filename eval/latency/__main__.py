# SPDX-License-Identifier: Apache-2.0
"""``python -m eval.latency``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eval.command import find_executable
from eval.errors import EvaluationError, run_to_its_end
from eval.interrupts import interrupts_raise
from eval.latency.arm import FIRST_TOKENS, measure_arms
from eval.latency.command import ArmName, Setup
from eval.latency.model import SHAPES, ShapeName, write_model
from eval.latency.plot import write_plot
from eval.latency.result import LatencyResult
from eval.machine import installed_versions, this_machine

_DEFAULT_ARMS = (ArmName.off, ArmName.stock_async, ArmName.async_)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    arms: Annotated[
        list[ArmName] | None,
        typer.Option(
            "--arm", help="Only this one; repeatable.", show_default="off, stock-async, async"
        ),
    ] = None,
    shape: Annotated[ShapeName, typer.Option(help="Of the model.")] = ShapeName.wide,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 8,
    tokens: Annotated[int, typer.Option(min=2 * FIRST_TOKENS, max=4000, help="Of each.")] = 1000,
    moe_layers: Annotated[int | None, typer.Option(min=1, help="Instead of the shape's.")] = None,
    experts: Annotated[int | None, typer.Option(min=8, help="In each layer.")] = None,
    redundant: Annotated[int | None, typer.Option(min=1, help="In each layer.")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=0, max=2, help="1: loopback.", show_default="all, at most 2"),
    ] = None,
    graphs: Annotated[bool, typer.Option("--graphs", help="CUDA graphs; not in loopback.")] = False,
    servers_at_once: Annotated[
        int, typer.Option(min=1, help="Started together, measured one after another.")
    ] = 1,
    folder: Annotated[Path, typer.Option(help="For servers' logs and step times.")] = Path(
        "runs/latency"
    ),
    json: Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a plot (.png) here.")] = None,
) -> None:
    """Time between tokens, and inside EPLB's state manager, while experts move all the time.

    A random model is served by two EP ranks: without EPLB, with vLLM's own and with the plugin's,
    sync or async. Two GPUs are used if there are two, else one in loopback, else the CPU.
    """
    changes = {"moe_layers": moe_layers, "experts": experts, "redundant": redundant}
    sizes = SHAPES[shape].model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )
    machine = this_machine()
    model = folder / "model"
    used = _gpus(gpus, len(machine.accelerators))
    setup = Setup(find_executable(None), model, sizes, used, graphs, streams, tokens)
    _refuse_what_cannot_be_measured(setup, json, plot)
    write_model(sizes, model)
    console = Console(highlight=False, soft_wrap=True)
    names = arms or list(_DEFAULT_ARMS)
    with interrupts_raise():
        measured = list(measure_arms(names, setup, folder, servers_at_once, console))
    result = LatencyResult(
        model=sizes,
        streams=streams,
        tokens=tokens,
        loopback=setup.loopback,
        gpus=used,
        servers_at_once=servers_at_once,
        machine=machine,
        versions=installed_versions(),
        arms=measured,
    )
    result.write(folder / "latency.json")
    console.print(result.table())
    for line in result.conclusions():
        console.print(line)
    if json is not None:
        result.write(json)
    if plot is not None:
        write_plot(result, plot)


def _gpus(asked: int | None, there: int) -> int:
    if asked is None:
        return min(there, 2)
    if asked > there:
        raise EvaluationError(f"--gpus {asked}: nvidia-smi lists {there}. Leave it out to use all")
    return asked


def _refuse_what_cannot_be_measured(setup: Setup, *files: Path | None) -> None:
    shape = setup.shape
    slots = shape.experts + shape.redundant
    if slots % 2:
        raise EvaluationError(
            f"{shape.experts} experts and {shape.redundant} redundant are {slots} slots, "
            "which two ranks cannot share evenly: make them an even number together"
        )
    if setup.graphs and setup.loopback:
        raise EvaluationError("--graphs: CUDA graphs cannot capture loopback's collectives")
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise EvaluationError(f"{file} cannot be written: there is no folder {file.parent}")


if __name__ == "__main__":
    run_to_its_end(app)
