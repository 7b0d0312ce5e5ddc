# SPDX-License-Identifier: Apache-2.0
"""Write reports where they are wanted."""

from collections.abc import Sequence
from pathlib import Path

from eval.report.markdown import render_markdown
from eval.report.page import render_page
from eval.report.runs import read_runs
from eval.report.viewing import view_of_runs
from eval.results.writing import write_named


def write_reports(folders: Sequence[Path], markdown: Path | None, html: Path | None) -> None:
    """Write one report of all runs in each form that has a file.

    Raises:
        EvaluationError: The runs cannot be read or do not belong together, or a file cannot be
            written.
    """
    report = view_of_runs(read_runs(folders))
    for file, render in ((markdown, render_markdown), (html, render_page)):
        if file is not None:
            write_named(file, render(report))
