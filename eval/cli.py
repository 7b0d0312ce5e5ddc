# SPDX-License-Identifier: Apache-2.0
"""The commands: run an evaluation, judge it again, report runs, or print what one can detect."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eval.commands.latency import latency
from eval.commands.run import run
from eval.commands.stress import stress_command
from eval.config.loading import load_config, load_gate
from eval.errors import EvaluationError, run_to_its_end
from eval.judging.controls import add_controls
from eval.judging.kept import judge_again
from eval.judging.power import PairedTest
from eval.judging.power_table import power_table
from eval.preflight.look import findings_table, preflight
from eval.report.earlier import print_earlier
from eval.report.files import write_reports
from eval.report.junit import write_junit, write_junit_of_no_run
from eval.report.terminal import print_report
from eval.results.folder import read_result
from eval.results.schema import EXIT_CODES

_DEFAULT_CONFIG = Path(__file__).parent / "config" / "presets" / "cpu.yaml"

_Gate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Another gate, such as ci/gates/cpu-quick.yaml.", show_default=False
    ),
]
_Junit = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write the rules as JUnit XML; FOLDER: NAME.xml.", show_default=False
    ),
]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("run")
def run_command(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG", show_default="eval/config/presets/cpu.yaml")
    ] = _DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Option(help="Name of the run instead of its own.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Only this arm and off; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
    ] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="NAME", help="Also with this fault; all; repeatable."),
    ] = None,
    gate: _Gate = None,
    junit: _Junit = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Never resume.")] = False,
    servers_at_once: Annotated[
        int, typer.Option(min=1, help="Started together, asked one after another.")
    ] = 1,
) -> None:
    """Serve, ask, judge. Exit code 0: passed; 1: failed or not tested; 2: could not run."""
    console = Console()
    overrides = [*(settings or []), *([f"name={json.dumps(name)}"] if name else [])]
    config = load_config(config_file, overrides, only or [], gate)
    if controls:
        config = add_controls(config, controls)
    try:
        result, folder = run(config, Path("runs"), fresh, console, servers_at_once)
    except KeyboardInterrupt:
        # typer's own exit code for this is 1, which here says that the run failed.
        raise typer.Exit(2) from None
    except EvaluationError as error:
        if junit is not None:
            write_junit_of_no_run(config.name, str(error), junit)
        raise
    if junit is not None:
        write_junit(result, junit)
    print_report(result, console)
    write_reports([folder], folder / "report.md", folder / "report.html")
    console.print(
        f"report: {folder / 'report.html'}; everything is in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    raise typer.Exit(EXIT_CODES[result.verdict])


@app.command("gate")
def gate_command(
    folders: Annotated[list[Path], typer.Argument(metavar="runs/NAME...")],
    gate: _Gate = None,
    junit: _Junit = None,
) -> None:
    """Judge a run again, with the arms of further runs beside its arm off. Writes nothing."""
    result = judge_again(folders, load_gate(gate) if gate else None)
    print_report(result, Console())
    if junit is not None:
        write_junit(result, junit)
    raise typer.Exit(EXIT_CODES[result.verdict])


@app.command("power")
def power_command(
    margin: Annotated[float, typer.Option(min=0.01, help="In points.")] = 3.0,
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.4, help="Of one comparison.")] = 0.005,
) -> None:
    """Print how often the paired test notices a loss, as Markdown (docs/gates.md)."""
    print(power_table(PairedTest(alpha, margin / 100)))


@app.command("check")
def check_command(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG", show_default="eval/config/presets/cpu.yaml")
    ] = _DEFAULT_CONFIG,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
    ] = None,
) -> None:
    """Look for everything that a run needs, as `run` does first. Exit code 2: some is missing."""
    console = Console()
    found = preflight(load_config(config_file, settings or []), console)
    console.print(findings_table(found.findings))
    raise typer.Exit(2 if found.missing else 0)


@app.command("report")
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="runs/NAME...")],
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it for a pull request.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one page for a browser.")
    ] = None,
) -> None:
    """Report runs again: to the terminal, or several in one file. Exit code 2: cannot be read."""
    if markdown is None and html is None:
        for folder in folders:
            if folder.is_file():
                print_earlier(folder, Console())
            else:
                print_report(read_result(folder), Console())
        return
    write_reports(folders, markdown, html)


app.command("latency")(latency)
app.command("stress")(stress_command)


def main() -> None:
    """Run a command."""
    run_to_its_end(app)
