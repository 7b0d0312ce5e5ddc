# SPDX-License-Identifier: Apache-2.0
"""The commands: run an evaluation, or report finished ones."""

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eval.config_file import load_config
from eval.errors import EvaluationError
from eval.folder import read_result
from eval.report import print_report
from eval.reporting.files import write_reports
from eval.result import EXIT_CODES
from eval.run import run

_DEFAULT_CONFIG = Path(__file__).parent / "configs" / "cpu.yaml"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("run")
def run_command(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG", show_default="eval/configs/cpu.yaml")
    ] = _DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Option(help="Name of the run instead of its own.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Only this arm and off; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Never resume.")] = False,
) -> None:
    """Serve, ask, compare. Exit code 0: same answers; 1: not; 2: could not run."""
    console = Console()
    overrides = [*(settings or []), *([f"name={json.dumps(name)}"] if name else [])]
    config = load_config(config_file, overrides, only or [])
    try:
        result, folder = run(config, Path("runs"), fresh, console)
    except KeyboardInterrupt:
        # typer's own exit code for this is 1, which here says that answers differ.
        raise typer.Exit(2) from None
    print_report(result, console)
    console.print(f"everything is in {folder}", highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_CODES[result.verdict])


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
            print_report(read_result(folder), Console())
        return
    write_reports(folders, markdown, html)


def main() -> None:
    """Run a command; whatever keeps it from its end is exit code 2."""
    try:
        app()
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # Python's own exit code for this is 1, which here says that answers differ.
        traceback.print_exc()
        sys.exit(2)
