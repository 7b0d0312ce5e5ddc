# SPDX-License-Identifier: Apache-2.0
"""The commands: run an evaluation, judge it again, report runs, or print what one can detect.

What a command needs is imported when it is called: some of it takes seconds.
"""

import errno
import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from eval.commands.options import (
    ArmsOption,
    ConfigArgument,
    GateOption,
    JunitOption,
    KeyOption,
    SettingsOption,
    VerboseOption,
)
from eval.config.find import DEFAULT, find_config
from eval.config.loading import DEFAULT_ARMS, load_config, load_gate
from eval.errors import EvaluationError, PreflightError, run_to_its_end
from eval.interrupts import interrupts_end_at_once
from eval.preflight.outputs import require_file, require_folder
from eval.report.console import PlainConsole
from eval.standard_streams import output_is_lost

_RUNS = Path("runs")

_ELSEWHERE = {
    "latency": ("eval.commands.latency", "latency"),
    "throughput": ("eval.commands.throughput", "throughput"),
    "stress": ("eval.commands.stress", "stress_command"),
    "faults": ("eval.commands.fault_table", "faults_command"),
}
"""Commands with a module of their own, and its function."""


class _Commands(TyperGroup):
    """All commands; some come from elsewhere when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help."""
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, function = _ELSEWHERE[cmd_name]
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(getattr(import_module(module), function))
        return typer.main.get_command(alone)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what it printed has to have arrived, unless its exit says a verdict."""
        try:
            value = super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # typer would take it for a reader of standard output, and exit with 1.
                raise RuntimeError("a connection or a pipe was closed") from error
            raise
        if output_is_lost():
            raise typer.Exit(2)
        return value


app = typer.Typer(
    cls=_Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)


@app.command("run")
def run_command(
    config_file: ConfigArgument = DEFAULT,
    name: Annotated[str | None, typer.Option(help="Name of the run instead of its own.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Only this arm and off; repeatable.")
    ] = None,
    arms: ArmsOption = DEFAULT_ARMS,
    settings: SettingsOption = None,
    controls: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="NAME", help="Also with this fault; all; repeatable."),
    ] = None,
    gate: GateOption = None,
    junit: JunitOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Never resume.")] = False,
    verbose: VerboseOption = False,
    servers_at_once: Annotated[
        int, typer.Option(min=1, help="Started together, asked one after another.")
    ] = 1,
    api_key_env: KeyOption = None,
) -> None:
    """Serve, ask, judge. Exit code 0: passed; 1: failed; 2: no verdict; 3: not tested."""
    overrides = [*(settings or []), *([] if name is None else [f"name={json.dumps(name)}"])]
    config = load_config(find_config(config_file), overrides, only or [], gate, arms)
    require_file(junit, "--junit", f"{config.name}.xml")
    require_folder(_RUNS / config.name)
    from eval.commands.accuracy import run
    from eval.judging.controls import add_controls
    from eval.report.files import write_reports
    from eval.report.junit import write_junit, write_junit_of_no_run
    from eval.report.terminal import print_report
    from eval.results.schema import EXIT_CODES
    from eval.serving.elsewhere import key_of

    key = key_of(config, api_key_env)
    console = PlainConsole()
    if controls:
        config = add_controls(config, controls)
    try:
        result, folder = run(config, _RUNS, fresh, console, servers_at_once, key)
    except KeyboardInterrupt:
        # typer's own exit code for this is 1, which here says that the run failed.
        raise typer.Exit(2) from None
    except EvaluationError as error:
        if junit is not None:
            write_junit_of_no_run(config.name, str(error), junit)
        raise
    if junit is not None:
        write_junit(result, junit)
    print_report(result, console, verbose)
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
    gate: GateOption = None,
    junit: JunitOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Judge a run again, with the arms of further runs beside its arm off. Writes nothing."""
    require_file(junit, "--junit", "gate.xml")
    own_gate = load_gate(gate) if gate else None
    from eval.judging.kept import judge_kept
    from eval.report.junit import write_junit
    from eval.report.terminal import print_report
    from eval.results.schema import EXIT_CODES

    result = judge_kept(folders, own_gate)
    print_report(result, PlainConsole(), verbose)
    if junit is not None:
        write_junit(result, junit)
    raise typer.Exit(EXIT_CODES[result.verdict])


@app.command("power")
def power_command(
    margin: Annotated[float, typer.Option(min=0.01, help="In points.")] = 3.0,
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.4, help="Of one comparison.")] = 0.005,
) -> None:
    """Print how often the paired test notices a loss, as Markdown (docs/statistics.md)."""
    from eval.judging.power import PairedTest
    from eval.judging.power_table import power_table

    print(power_table(PairedTest(alpha, margin / 100)))


@app.command("check")
def check_command(
    config_file: ConfigArgument = DEFAULT,
    arms: ArmsOption = DEFAULT_ARMS,
    settings: SettingsOption = None,
    api_key_env: KeyOption = None,
) -> None:
    """Look for everything that a run needs, as `run` does first. Exit code 2: some is missing."""
    config = load_config(find_config(config_file), settings or [], arms=arms)
    from eval.preflight.elsewhere import look_elsewhere
    from eval.preflight.fitness import Finding
    from eval.preflight.preparation import findings_table, preflight
    from eval.serving.elsewhere import key_of

    key = key_of(config, api_key_env)
    console = PlainConsole()
    found = preflight(config, console)
    found.findings += look_elsewhere(config, config.arms, key, console)
    try:
        require_folder(_RUNS / config.name)
    except PreflightError as error:
        found.findings.append(Finding("runs", "missing", str(error)))
    console.print(findings_table(found.findings))
    if found.missing:
        raise typer.Exit(2)


@app.command("report")
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="runs/NAME...")],
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it for a pull request.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one page for a browser.")
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Report runs again: to the terminal, or several in one file. Exit code 2: cannot be read.

    The terminal's needs no more than a run's result.json, which can be named instead.
    """
    require_file(markdown, "--markdown")
    require_file(html, "--html")
    if markdown is None and html is None:
        from eval.report.terminal import print_report
        from eval.results.folder import read_result

        for folder in folders:
            if folder.is_file():
                from eval.report.one_file import print_file

                print_file(folder, PlainConsole(), verbose)
            else:
                print_report(read_result(folder), PlainConsole(), verbose)
        return
    from eval.report.files import write_reports

    write_reports(folders, markdown, html)


def main(*arguments: str) -> None:
    """Run a command and exit.

    Args:
        arguments: Instead of those of the process.
    """
    interrupts_end_at_once()
    run_to_its_end(lambda: app([*arguments] or None, prog_name="python -m eval"))
