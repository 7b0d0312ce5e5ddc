# SPDX-License-Identifier: Apache-2.0
"""Write reports where they are wanted."""

from collections.abc import Sequence
from pathlib import Path

from eval.errors import RunFolderError
from eval.report.markdown import render_markdown
from eval.report.measured import measured_markdown, measured_page
from eval.report.page import render_page
from eval.report.runs import read_runs
from eval.report.viewing import view_of_runs
from eval.results.folder import read_result
from eval.results.schema import Result
from eval.results.writing import write_named


def write_reports(folders: Sequence[Path], markdown: Path | None, html: Path | None) -> None:
    """Write one report of all runs in each form that has a file.

    Raises:
        EvaluationError: The runs cannot be read or do not belong together, or a file cannot be
            written.
    """
    for folder in folders:
        if folder.is_file():
            what = "a report in a file also shows what is beside it"
            raise RunFolderError(f"{folder} is a file: {what}, name the run's folder")
    results = [read_result(folder) for folder in folders]
    if any(result.kind != "accuracy" for result in results):
        _write_measured(results, markdown, html)
        return
    report = view_of_runs(read_runs(folders))
    for file, render in ((markdown, render_markdown), (html, render_page)):
        if file is not None:
            write_named(file, render(report))


def _write_measured(results: Sequence[Result], markdown: Path | None, html: Path | None) -> None:
    first, *others = results
    if others:
        named = ", ".join(f"{result.name} ({result.kind})" for result in results)
        raise RunFolderError(
            f"{named}: a run that is not of questions has a report of its own, name one"
        )
    for file, render in ((markdown, measured_markdown), (html, measured_page)):
        if file is not None:
            write_named(file, render(first))
