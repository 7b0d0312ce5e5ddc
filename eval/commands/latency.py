# SPDX-License-Identifier: Apache-2.0
"""``python -m eval latency``."""

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import typer

from eval.commands.impossible import (
    require_each_once,
    require_even_slots,
    require_graphs_possible,
)
from eval.commands.keeping import copy_result, place, require_numbers, require_writable
from eval.commands.latency_gpus import RANKS, choose_gpus
from eval.commands.latency_model import ShapeName, shape_of
from eval.commands.latency_run import measure
from eval.commands.latency_setup import ArmName, Checks, Setup, Switching
from eval.commands.latency_times import FIRST_TOKENS
from eval.commands.measuring_options import (
    All2AllOption,
    ExpertsOption,
    FolderOption,
    GpusOption,
    GraphsOption,
    JsonOption,
    MoeLayersOption,
    PlotOption,
    RanksOption,
    TransferOption,
    instead,
)
from eval.config.schema import BASELINE
from eval.errors import ConfigError
from eval.report.console import PlainConsole
from eval.report.figure import require_plot
from eval.report.files import write_reports
from eval.report.latency_plot import write_plot
from eval.report.terminal import print_report
from eval.results.machine import this_machine
from eval.results.schema import EXIT_CODES
from eval.serving.command import find_executable

_DEFAULT_ARMS = (ArmName.off, ArmName.stock_async, ArmName.async_)

_SHAPE_HELP = "wide: many layers and experts, hardly any arithmetic; or real sizes, of 31 or 61 GB."


_LOAD_HELP = (
    "steady: completions that are all alike; switching: one after another, of prompts that are "
    "routed to other experts in turns, so that every rearrangement moves many."
)


_CHECKS_HELP = (
    "Serve the plugin's arms with weight checks: again, after all arms were timed, or only so. "
    "What they took is no figure. Load switching only."
)


class LoadChoice(str, Enum):
    """Of ``--load``."""

    steady = "steady"
    switching = "switching"


def _switching(kind: type[int] | type[float], what: str, default: str) -> Any:
    least = 1 if kind is int else 0.1
    return typer.Option(min=least, help=f"{what} Load switching only.", show_default=default)


def latency(
    arms: Annotated[
        list[ArmName] | None,
        typer.Option(
            "--arm", help="Only this one; repeatable.", show_default="off, stock-async, async"
        ),
    ] = None,
    shape: Annotated[ShapeName, typer.Option(help=_SHAPE_HELP)] = ShapeName.wide,
    load: Annotated[LoadChoice, typer.Option(help=_LOAD_HELP)] = LoadChoice.steady,
    streams: Annotated[
        int | None,
        typer.Option(min=1, help="Completions at the same time.", show_default="8; switching: 16"),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=2 * FIRST_TOKENS, max=4000, help="Of each.", show_default="1000; switching: 64"
        ),
    ] = None,
    completions: Annotated[int | None, _switching(int, "Asked of each arm.", "200")] = None,
    turn: Annotated[
        int | None, _switching(int, "Prompts of a domain before the next domain's.", "--streams")
    ] = None,
    most_seconds: Annotated[
        float | None, _switching(float, "Of an arm, after which no completion is begun.", "any")
    ] = None,
    interval: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="EPLB's window and step interval.",
            show_default="async: 16, sync: 64; switching: 20",
        ),
    ] = None,
    transfer: TransferOption = None,
    checks: Annotated[Checks, typer.Option(help=_CHECKS_HELP)] = Checks.none,
    all2all_backend: All2AllOption = None,
    ranks: RanksOption = RANKS,
    moe_layers: MoeLayersOption = None,
    experts: ExpertsOption = None,
    redundant: Annotated[int | None, instead(1, "32, 16 or 16")] = None,
    gpus: GpusOption = None,
    graphs: GraphsOption = False,
    servers_at_once: Annotated[
        int,
        typer.Option(min=1, help="Started together, and measured one after another: sooner done."),
    ] = 1,
    most_p99: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="TIMES",
            help="Fail if the p99 between tokens is more than so many times that of off.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run, kept in runs/NAME.", show_default="latency")
    ] = None,
    folder: FolderOption = None,
    json: JsonOption = None,
    plot: PlotOption = None,
) -> None:
    """Time between tokens, and inside EPLB's state manager, while experts move all the time.

    A random model is served by two EP ranks: without EPLB, with vLLM's own and with the plugin's,
    sync or async. A GPU a rank is used if there are so many, else one in loopback, else the CPU.

    Exit code 0: passed; 1: failed; 2: could not run; 3: not tested.
    """
    changes = {"moe_layers": moe_layers, "experts": experts, "redundant": redundant}
    sizes = shape_of(shape, changes)
    machine = this_machine()
    runs, name = place("latency", name, folder)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    used = choose_gpus(gpus, len(machine.accelerators), visible, ranks)
    switches = load is LoadChoice.switching
    streams = streams or (16 if switches else 8)
    only_switching = {"completions": completions, "turn": turn, "most_seconds": most_seconds}
    if not switches:
        _refuse_without_switching(only_switching, checks)
    setup = Setup(
        executable=find_executable(None),
        model=runs / name / "model",
        shape=sizes,
        gpus=used,
        graphs=graphs,
        streams=streams,
        tokens=tokens or (64 if switches else 1000),
        ranks=ranks,
        switching=Switching(completions or 200, turn or streams, most_seconds)
        if switches
        else None,
        interval=interval,
        transfer=transfer.value if transfer else None,
        all2all=all2all_backend,
        checks=checks,
        servers_at_once=servers_at_once,
    )
    names = arms or list(_DEFAULT_ARMS)
    _refuse_what_cannot_be_measured(setup, names, most_p99)
    require_numbers(most_p99=most_p99, most_seconds=most_seconds)
    require_writable(json, plot)
    if plot is not None:
        require_plot(plot)
    console = PlainConsole(highlight=False, soft_wrap=True)
    try:
        result, kept = measure(setup, names, most_p99, runs, name, console)
    except KeyboardInterrupt:
        # typer's own exit code for this is 1, which here says that a rule failed.
        raise typer.Exit(2) from None
    print_report(result, PlainConsole())
    write_reports([kept], kept / "report.md", kept / "report.html")
    console.print(f"report: {kept / 'report.html'}; everything is in {kept}")
    copy_result(kept, json)
    if plot is not None and result.arms:
        write_plot(result, plot)
    raise typer.Exit(EXIT_CODES[result.verdict])


def _refuse_without_switching(given: Mapping[str, float | None], checks: Checks) -> None:
    options = [name.replace("_", "-") for name, value in given.items() if value is not None]
    options += ["checks"] * (checks is not Checks.none)
    if options:
        raise ConfigError(
            f"--{options[0]} belongs to --load switching, whose model has weights of its own and "
            "whose completions are asked one after another: add that, or leave it out"
        )


def _refuse_what_cannot_be_measured(
    setup: Setup, names: Sequence[ArmName], most_p99: float | None
) -> None:
    require_each_once(names)
    if most_p99 is not None and ArmName.off not in names:
        raise ConfigError(
            f"--most-p99 {most_p99:g} compares with arm {BASELINE}: add --arm {BASELINE}"
        )
    if setup.checks is Checks.only and not any(name.plugin for name in names):
        raise ConfigError("--checks only: none of these arms is the plugin's. Add --arm sync")
    require_even_slots(setup.shape.experts, setup.shape.redundant, setup.ranks)
    require_graphs_possible(setup.graphs, len(setup.gpus), setup.ranks)
