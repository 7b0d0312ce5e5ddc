# SPDX-License-Identifier: Apache-2.0
"""What all plots have in common."""

from pathlib import Path
from typing import Any

from eval.errors import EvaluationError


def require_plot(file: Path) -> None:
    """Before anything long: a plot is drawn at its end.

    Raises:
        EvaluationError: matplotlib is not installed, or knows no such form of a file.
    """
    known = new_figure(1, 1).canvas.get_supported_filetypes()
    if file.suffix.removeprefix(".").lower() not in known:
        raise EvaluationError(
            f"--plot {file}: its name has to end with one of .{', .'.join(sorted(known))}"
        )


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EvaluationError(f"--plot needs matplotlib: {error}") from error
    return Figure(figsize=(width, height), layout="constrained")


def finish_axes(axes: Any, title: str) -> None:
    """Give them their title, a faint grid, and no frame."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, file: Path) -> None:
    """Write it, in the form that the file's name ends with.

    Raises:
        EvaluationError: There is no such form, or the file cannot be written.
    """
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"--plot {file} cannot be written: {error}") from error
