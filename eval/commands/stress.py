# SPDX-License-Identifier: Apache-2.0
"""``python -m eval stress``."""

from pathlib import Path
from typing import Annotated

import typer

from eval.commands.stress_arm import stress
from eval.config.find import find_config
from eval.config.loading import load_config
from eval.errors import ConfigError, EvaluationError
from eval.interrupts import interrupts_raise
from eval.report.console import PlainConsole
from eval.report.figure import require_matplotlib
from eval.report.memory_plot import write_plot
from eval.results.lock import alone_in
from eval.secrets import SECRETS


def stress_command(
    config_file: Annotated[str, typer.Argument(metavar="CONFIG")],
    arm: Annotated[str, typer.Option(help="Which of the configuration.")] = "async",
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 600,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 16,
    hang_seconds: Annotated[
        float, typer.Option(min=1, help="Without any token, after which the server hangs.")
    ] = 60,
    rearrangements: Annotated[int, typer.Option(min=0, help="At least.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="For log, events and result.")] = Path("runs/stress"),
    json: Annotated[Path | None, typer.Option("--json", help="Write the result here, too.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a plot (.png) here.")] = None,
) -> None:
    """Keep one arm of an evaluation under load while EPLB moves experts all the time.

    Exit code 0: nothing broke; 1: something did; 2: could not run.
    """
    for file in (json, plot):
        if file is not None and not file.parent.is_dir():
            raise EvaluationError(f"{file} cannot be written: there is no folder {file.parent}")
    if plot is not None:
        require_matplotlib()
    config = load_config(find_config(config_file), settings or [])
    names = [one.name for one in config.arms]
    if arm not in names:
        raise ConfigError(f"--arm {arm}: {config_file} has no such arm, it has {', '.join(names)}")
    console = PlainConsole(highlight=False, soft_wrap=True)
    try:
        with interrupts_raise(), alone_in(folder, "give this one another --folder"):
            result = stress(
                config, arm, seconds, streams, hang_seconds, rearrangements, folder, console
            )
    except KeyboardInterrupt:
        # typer's own exit code for this is 1, which here says that something broke.
        raise typer.Exit(2) from None
    result = SECRETS.hide_in_model(result)
    for file in (folder / "stress.json", json):
        if file is not None:
            result.write(file)
    console.print(result.table())
    console.print("passed" if result.passed else "failed")
    if plot is not None and result.memory:
        write_plot(result, plot)
    raise typer.Exit(0 if result.passed else 1)
