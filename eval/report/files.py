# SPDX-License-Identifier: Apache-2.0
"""Write reports where they are wanted."""

from collections.abc import Sequence
from pathlib import Path

from eval.errors import RunFolderError
from eval.report.markdown import render_markdown
from eval.report.page import render_page
from eval.report.runs import read_runs


def write_reports(folders: Sequence[Path], markdown: Path | None, html: Path | None) -> None:
    """Write one report of all runs in each form that has a file.

    Raises:
        EvaluationError: The runs cannot be read or do not belong together, or a file cannot be
            written.
    """
    runs = read_runs(folders)
    for file, render in ((markdown, render_markdown), (html, render_page)):
        if file is not None:
            _write(file, render(runs))


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write the report {file}: {error.strerror}") from error
