# SPDX-License-Identifier: Apache-2.0
"""What all plots have in common."""

from typing import Any

from eval.errors import EvaluationError


def require_matplotlib() -> None:
    """Before anything long: a plot is drawn at its end.

    Raises:
        EvaluationError: It is not installed.
    """
    new_figure(1, 1)


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
