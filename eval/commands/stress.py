# SPDX-License-Identifier: Apache-2.0
"""``python -m eval stress``."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from eval.commands.keeping import copy_result, place, require_numbers, require_writable
from eval.commands.stress_run import stress
from eval.config.faults import PROMISES, FaultName
from eval.config.find import find_config
from eval.config.loading import ALL_ARMS, load_config
from eval.errors import ConfigError
from eval.report.console import PlainConsole
from eval.report.figure import require_plot
from eval.report.files import write_reports
from eval.report.memory_plot import write_plot
from eval.report.terminal import print_report
from eval.results.schema import EXIT_CODES
from eval.results.stress import StressWorkload


def stress_command(
    config_file: Annotated[str, typer.Argument(metavar="CONFIG")],
    arm: Annotated[str, typer.Option(help="Which of the configuration.")] = "async",
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 600,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 16,
    hang_seconds: Annotated[
        float, typer.Option(min=1, help="Without any token, after which the server hangs.")
    ] = 60,
    rearrangements: Annotated[int, typer.Option(min=0, help="At least.")] = 1,
    fault: Annotated[
        str | None, typer.Option(metavar="NAME", help="Strikes meanwhile (docs/faults.md).")
    ] = None,
    fault_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How long it lasts, where it does.")
    ] = None,
    soak: Annotated[
        bool,
        typer.Option(
            "--soak", help="Requests come, go and are broken off; ranks stop; weights are reloaded."
        ),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run, kept in runs/NAME.", show_default="stress")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Instead of runs/NAME.", show_default=False)
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result here, too.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a plot (.png) here.")] = None,
) -> None:
    """Keep one arm of an evaluation under load while EPLB moves experts all the time.

    Exit code 0: nothing broke; 1: something did; 2: could not run; 3: not tested.
    """
    require_numbers(seconds=seconds, hang_seconds=hang_seconds)
    require_writable(json, plot)
    if plot is not None:
        require_plot(plot)
    runs, name = place("stress", name, folder)
    overrides = [*(settings or []), f"name={dumps(name)}"]
    config = load_config(find_config(config_file), overrides, arms=ALL_ARMS)
    names = [one.name for one in config.arms]
    if arm not in names:
        raise ConfigError(f"--arm {arm}: {config_file} has no such arm, it has {', '.join(names)}")
    chosen = _fault(fault, fault_seconds, soak)
    workload = StressWorkload(
        seconds=seconds,
        streams=streams,
        hang_seconds=hang_seconds,
        rearrangements=rearrangements,
        fault=chosen,
        fault_seconds=fault_seconds,
        soak=soak,
    )
    console = PlainConsole(highlight=False, soft_wrap=True)
    try:
        result, kept = stress(config, arm, workload, runs, console)
    except KeyboardInterrupt:
        # typer's own exit code for this is 1, which here says that something broke.
        raise typer.Exit(2) from None
    print_report(result, PlainConsole())
    write_reports([kept], kept / "report.md", kept / "report.html")
    console.print(f"report: {kept / 'report.html'}; everything is in {kept}")
    copy_result(kept, json)
    if plot is not None and result.arms:
        write_plot(result.arms[0], plot)
    raise typer.Exit(EXIT_CODES[result.verdict])


def _fault(name: str | None, seconds: float | None, soak: bool) -> FaultName | None:
    if name is None:
        if seconds is not None:
            raise ConfigError("--fault-seconds says how long a fault lasts: give --fault, too")
        return None
    if soak:
        raise ConfigError("--soak has things happen at random times: leave --fault out")
    if name not in PROMISES:
        raise ConfigError(f"--fault {name}: there is no such fault, only {', '.join(PROMISES)}")
    return name
