# SPDX-License-Identifier: Apache-2.0
"""Results of latency and stress runs from before these were kept in folders: one file each."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.errors import RunFolderError
from eval.report.latency import latency_view
from eval.report.terminal import latency_table
from eval.results.latency_of_schema_2 import LatencyResult
from eval.results.stress_of_schema_3 import StressResult

_Earlier = LatencyResult | StressResult


def print_earlier(file: Path, console: Console) -> None:
    """Print what a file says that ``--json`` wrote before.

    Raises:
        RunFolderError: It is no such file, or cannot be read.
    """
    try:
        result = TypeAdapter[_Earlier](_Earlier).validate_json(file.read_bytes())
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        raise RunFolderError(
            f"{file} is no result of an earlier latency or stress run: name the folder of a run"
        ) from error
    if isinstance(result, LatencyResult):
        view = latency_view(result)
        console.print(latency_table(view))
        for line in view.conclusions():
            console.print(line, soft_wrap=True, highlight=False)
    else:
        console.print(_rules(result))


def _rules(result: StressResult) -> Table:
    table = Table("", result.arm, "")
    for rule in result.rules:
        passed = Text("passed", "green") if rule.passed else Text("failed", "red")
        table.add_row(rule.rule, passed, Text(rule.saw))
    return table
