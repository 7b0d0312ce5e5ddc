# SPDX-License-Identifier: Apache-2.0
"""Results that are one file: a ``result.json`` by itself, or of before runs had folders."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.report.latency import latency_view
from eval.report.terminal import print_latency, print_report
from eval.results.json_files import parse_model, read_bytes
from eval.results.latency_of_schema_2 import LatencyResult
from eval.results.schema import Result
from eval.results.stress_of_schema_3 import StressResult

_Earlier = LatencyResult | StressResult


def print_file(file: Path, console: Console, verbose: bool) -> None:
    """Print the result of one run of any kind.

    Args:
        file: A ``result.json`` without what else is in its folder, or what ``--json`` wrote for a
            latency or a stress run before these were kept in folders.
        console: One that takes strings as they are (`eval.report.console`).
        verbose: As for `eval.report.terminal.print_report`.

    Raises:
        RunFolderError: It is no such file, or cannot be read.
    """
    text = read_bytes(file)
    try:
        earlier = TypeAdapter[_Earlier](_Earlier).validate_json(text)
    except ValidationError:
        print_report(parse_model(Result, text, str(file)), console, verbose)
        return
    if isinstance(earlier, StressResult):
        console.print(_rules(earlier))
    else:
        print_latency(latency_view(earlier), console)


def _rules(result: StressResult) -> Table:
    table = Table("", result.arm, "")
    for rule in result.rules:
        passed = Text("passed", "green") if rule.passed else Text("failed", "red")
        table.add_row(rule.rule, passed, Text(rule.saw))
    return table
