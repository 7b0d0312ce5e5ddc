# SPDX-License-Identifier: Apache-2.0
"""``python -m eval throughput``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from eval.commands.impossible import (
    require_each_once,
    require_even_slots,
    require_even_streams,
    require_graphs_possible,
)
from eval.commands.keeping import copy_result, place, require_numbers, require_writable
from eval.commands.latency_gpus import RANKS, choose_gpus
from eval.commands.latency_model import ShapeName, shape_of
from eval.commands.latency_weights import SKEW
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
from eval.commands.throughput_asked import (
    KindChoice,
    TrafficLoadChoice,
    domains_of_texts,
    random_domains,
    refuse_beside_a_model,
    refuse_without_a_model,
    require_model,
    traffics_of,
)
from eval.commands.throughput_run import Asking, measure
from eval.commands.throughput_setup import INTERVAL, ThroughputArm, ThroughputSetup
from eval.report.console import PlainConsole
from eval.report.figure import require_plot
from eval.report.files import write_reports
from eval.report.terminal import print_report
from eval.report.throughput_plot import write_plot
from eval.results.machine import this_machine
from eval.results.schema import EXIT_CODES
from eval.serving.command import find_executable

DEFAULT_ARMS = (
    ThroughputArm.off,
    ThroughputArm.balanced,
    ThroughputArm.stock_async,
    ThroughputArm.async_,
    ThroughputArm.async_incremental,
    ThroughputArm.warm,
)
_REDUNDANT = 16
"""Of a model that was given."""

_LOAD_HELP = (
    "Only this one; repeatable. skewed: prompts of one domain; drifting: from each domain to the "
    "next little by little; switching: domains take turns."
)
_TRAFFIC_HELP = (
    "Only this one; repeatable. decode: short prompts, many tokens; prefill: long prompts, few."
)
_SKEW_HELP = "Of the random model's router; 0: every domain goes to all experts alike."
_INITIAL_HELP = "Recording or placement for arm warm, instead of one that another arm records."
_AT_ONCE_HELP = (
    "Up together and asked in turns; with two or more, off is always one of them, and every arm "
    "is measured beside it."
)


def throughput(
    arms: Annotated[
        list[ThroughputArm] | None,
        typer.Option(
            "--arm",
            help="Only this one; repeatable.",
            show_default=", ".join(one.value for one in DEFAULT_ARMS),
        ),
    ] = None,
    shape: Annotated[
        ShapeName | None, typer.Option(help="Of a random model.", show_default="wide")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A trained model, instead of a random.")
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="A domain and its prompts, for --model; repeatable."
        ),
    ] = None,
    skew: Annotated[
        float | None, typer.Option(min=0.0, help=_SKEW_HELP, show_default=f"{SKEW:g}")
    ] = None,
    traffic: Annotated[
        list[KindChoice] | None, typer.Option(help=_TRAFFIC_HELP, show_default="both")
    ] = None,
    load: Annotated[
        list[TrafficLoadChoice] | None, typer.Option(help=_LOAD_HELP, show_default="all three")
    ] = None,
    completions: Annotated[
        int, typer.Option(min=1, help="Of each traffic, in each round of each arm.")
    ] = 512,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 256,
    tokens: Annotated[int, typer.Option(min=2, help="Generated of each, traffic decode.")] = 256,
    prompt_tokens: Annotated[int, typer.Option(min=16, help="Of each, traffic prefill.")] = 1024,
    turn: Annotated[
        int | None,
        typer.Option(
            min=1, help="Prompts of a domain before the next domain's.", show_default="--streams"
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Rounds that count; of fewer than 3, nothing is concluded.")
    ] = 3,
    interval: Annotated[
        int, typer.Option(min=1, help="EPLB's window and step interval.")
    ] = INTERVAL,
    initial: Annotated[
        Path | None, typer.Option(metavar="PATH", help=_INITIAL_HELP, show_default=False)
    ] = None,
    transfer: TransferOption = None,
    all2all_backend: All2AllOption = None,
    ranks: RanksOption = RANKS,
    moe_layers: MoeLayersOption = None,
    experts: ExpertsOption = None,
    redundant: Annotated[int | None, instead(0, "32, 16 or 16")] = None,
    gpus: GpusOption = None,
    graphs: GraphsOption = False,
    servers_at_once: Annotated[int, typer.Option(min=1, help=_AT_ONCE_HELP)] = 1,
    most_loss: Annotated[
        float,
        typer.Option(min=0.0, max=100.0, metavar="PERCENT", help="To be excluded, with --skew 0."),
    ] = 3.0,
    name: Annotated[
        str | None, typer.Option(help="Of the run, kept in runs/NAME.", show_default="throughput")
    ] = None,
    folder: FolderOption = None,
    json: JsonOption = None,
    plot: PlotOption = None,
) -> None:
    """Tokens a second with and without EPLB: does it pay?

    A model is served by two EP ranks: without EPLB, with vLLM's own, with the plugin's, and with
    perfect balance. Every arm is asked the same, traffic by traffic, in rounds that are repeated.

    Exit code 0: passed; 1: failed; 2: could not run; 3: not tested.
    """
    require_numbers(skew=skew, most_loss=most_loss)
    sizes = {"moe_layers": moe_layers, "experts": experts}
    runs, name = place("throughput", name, folder)
    names = arms or list(DEFAULT_ARMS)
    require_each_once(names)
    traffics = traffics_of(
        traffic or list(KindChoice), load or list(TrafficLoadChoice), prompt_tokens, tokens
    )
    if model is not None:
        refuse_beside_a_model({"shape": shape, "skew": skew, **sizes})
        chosen, slots = None, _REDUNDANT if redundant is None else redundant
        require_model(model, slots, ranks)
        domains = domains_of_texts(prompts or [])
    else:
        chosen = shape_of(shape or ShapeName.wide, {**sizes, "redundant": redundant})
        slots = chosen.redundant
        require_even_slots(chosen.experts, slots, ranks)
        refuse_without_a_model(prompts)
        domains = random_domains(chosen, traffics)
        skew = SKEW if skew is None else skew
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    setup = ThroughputSetup(
        executable=find_executable(None),
        model=model or runs / name / "model",
        shape=chosen,
        redundant=slots,
        gpus=choose_gpus(gpus, len(this_machine().accelerators), visible, ranks),
        graphs=graphs,
        streams=streams,
        traffics=traffics,
        ranks=ranks,
        interval=interval,
        transfer=transfer.value if transfer else None,
        all2all=all2all_backend,
        initial=initial and initial.absolute(),
        servers_at_once=servers_at_once,
    )
    require_even_streams(streams, ranks)
    require_graphs_possible(graphs, len(setup.gpus), ranks)
    require_writable(json, plot)
    if plot is not None:
        require_plot(plot)
    asking = Asking(domains, skew, completions, turn or streams, repeats, most_loss / 100)
    console = PlainConsole(highlight=False, soft_wrap=True)
    try:
        result, kept = measure(setup, names, asking, runs, name, console)
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
