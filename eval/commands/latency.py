# SPDX-License-Identifier: Apache-2.0
"""``python -m eval latency``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.commands.latency_arms import FIRST_TOKENS, measure_arms
from eval.commands.latency_gpus import RANKS, choose_gpus
from eval.commands.latency_model import SHAPES, ShapeName, write_model
from eval.commands.latency_setup import ArmName, Setup
from eval.errors import EvaluationError
from eval.interrupts import interrupts_raise
from eval.report.console import PlainConsole
from eval.report.figure import require_matplotlib
from eval.report.latency_plot import write_plot
from eval.results.latency import LatencyResult
from eval.results.lock import alone_in
from eval.results.machine import installed_versions, this_machine
from eval.secrets import SECRETS
from eval.serving.command import find_executable

_DEFAULT_ARMS = (ArmName.off, ArmName.stock_async, ArmName.async_)

_SHAPE_HELP = (
    "wide: many layers and experts, hardly any arithmetic; or DeepSeek's real sizes, 31 GB."
)


def _instead(least: int, of_shapes: str) -> Any:
    return typer.Option(min=least, help="Instead of the shape's.", show_default=of_shapes)


def latency(
    arms: Annotated[
        list[ArmName] | None,
        typer.Option(
            "--arm", help="Only this one; repeatable.", show_default="off, stock-async, async"
        ),
    ] = None,
    shape: Annotated[ShapeName, typer.Option(help=_SHAPE_HELP)] = ShapeName.wide,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 8,
    tokens: Annotated[int, typer.Option(min=2 * FIRST_TOKENS, max=4000, help="Of each.")] = 1000,
    moe_layers: Annotated[int | None, _instead(1, "58 or 26")] = None,
    experts: Annotated[int | None, _instead(8, "256 or 64")] = None,
    redundant: Annotated[int | None, _instead(1, "32 or 16")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=RANKS,
            help="To use; 1: loopback, 0: loopback with vLLM built for a CPU.",
            show_default="all, at most 2",
        ),
    ] = None,
    graphs: Annotated[bool, typer.Option("--graphs", help="CUDA graphs; two GPUs only.")] = False,
    servers_at_once: Annotated[
        int,
        typer.Option(min=1, help="Started together, and measured one after another: sooner done."),
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
    used = choose_gpus(gpus, len(machine.accelerators), os.environ.get("CUDA_VISIBLE_DEVICES"))
    setup = Setup(find_executable(None), model, sizes, used, graphs, streams, tokens)
    names = arms or list(_DEFAULT_ARMS)
    _refuse_what_cannot_be_measured(setup, names, json, plot)
    if plot is not None:
        require_matplotlib()
    console = PlainConsole(highlight=False, soft_wrap=True)
    result = LatencyResult(
        model=sizes,
        streams=streams,
        tokens=tokens,
        loopback=setup.loopback,
        gpus=len(used),
        servers_at_once=servers_at_once,
        machine=machine,
        versions=installed_versions(),
        arms=[],
    )
    with interrupts_raise(), alone_in(folder, "give this one another --folder"):
        write_model(sizes, model)
        for arm in measure_arms(names, setup, folder, servers_at_once, console):
            # After each: the next one may fail.
            result.arms.append(arm)
            result = SECRETS.hide_in_model(result)
            result.write(folder / "latency.json")
    console.print(result.table())
    for line in result.conclusions():
        console.print(line)
    if json is not None:
        result.write(json)
    if plot is not None:
        write_plot(result, plot)


def _refuse_what_cannot_be_measured(
    setup: Setup, names: Sequence[ArmName], *files: Path | None
) -> None:
    if len(set(names)) < len(names):
        given = ", ".join(name.value for name in names)
        raise EvaluationError(f"--arm {given}: each has one folder. Give each once")
    shape = setup.shape
    slots = shape.experts + shape.redundant
    if slots % RANKS:
        raise EvaluationError(
            f"{shape.experts} experts and {shape.redundant} redundant are {slots} slots, "
            "which two ranks cannot share evenly: make them an even number together"
        )
    if setup.graphs and setup.loopback:
        raise EvaluationError(
            "--graphs: CUDA graphs cannot capture loopback's collectives, and with "
            f"{len(setup.gpus)} of {RANKS} GPUs it is loopback. Use two, or leave --graphs out"
        )
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise EvaluationError(f"{file} cannot be written: there is no folder {file.parent}")
