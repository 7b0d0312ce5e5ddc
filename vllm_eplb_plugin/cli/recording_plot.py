# SPDX-License-Identifier: Apache-2.0
"""Load and balancedness of recordings over time, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vllm_eplb_plugin.recording.summary import Summary

_BALANCE, _BUSIEST, _TOKENS = "#2f6f9f", "#b0413e", "#5d5d5d"


def plot_recordings(summaries: Sequence[Summary], file: Path) -> None:
    """Draw three panels for each: balancedness, the busiest expert, tokens.

    Raises:
        ValueError: matplotlib writes no such kind of file.
        OSError: It cannot be written.
    """
    columns = len(summaries)
    figure = Figure(figsize=(max(6.0, 4.5 * columns), 5.5), layout="constrained")
    heights = [2, 1, 1]
    panels = figure.subplots(3, columns, squeeze=False, height_ratios=heights, sharex="col")
    for summary, axes in zip(summaries, panels.T, strict=True):
        _draw(summary, axes)
    figure.savefig(file, dpi=120)


def _draw(summary: Summary, axes: Any) -> None:
    served, moments = summary.recording.served, summary.moments
    steps = [one.step for one in moments]
    known = [(one.step, one.balancedness) for one in moments if one.balancedness is not None]
    axes[0].set_title(f"{served.model}, {served.shape.ranks} ranks", loc="left", fontsize=10)
    axes[0].plot([step for step, _ in known], [value for _, value in known], color=_BALANCE)
    axes[0].set_ylabel("balancedness\nas served", fontsize=9)
    axes[1].plot(steps, [one.busiest for one in moments], color=_BUSIEST)
    axes[1].set_ylabel("busiest expert\nover mean", fontsize=9)
    axes[2].plot(steps, [one.tokens for one in moments], color=_TOKENS)
    axes[2].set_ylabel("tokens of a\nlayer, a window", fontsize=9)
    axes[2].set_ylim(bottom=0)
    axes[2].set_xlabel("engine steps", fontsize=9)
    for one in axes:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
