# SPDX-License-Identifier: Apache-2.0
"""What policies reach over what they move, drawn by matplotlib."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from vllm_eplb_plugin.bench.comparison.rows import PolicyRow

_COLOURS = ("#2f6f9f", "#b0413e", "#4f8a4c", "#c48a2c", "#7a5c9e", "#5d5d5d", "#2aa198", "#8c564b")


def plot_policies(rows: Sequence[PolicyRow], file: Path) -> None:
    """Draw a panel for each load of each shape: served balancedness over experts moved."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    keys = groupby(rows, lambda row: (row.shape, row.ranks, row.load))
    panels = [(key, list(group)) for key, group in keys]
    colours = dict(zip(dict.fromkeys(row.policy for row in rows), _COLOURS * 9, strict=False))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.4 * lines + 0.6), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for (key, group), one in zip(panels, axes, strict=False):
        for row in group:
            one.plot(max(row.received, 1), row.next, "o", color=colours[row.policy], markersize=7)
        one.set_xscale("log")
        one.set_title(f"{key[0]}, {key[1]} ranks, {key[2]}", loc="left", fontsize=9)
        one.margins(0.12)
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
        one.set_xlabel("experts received, of one plan (none: at 1)", fontsize=8)
        one.set_ylabel("balancedness served", fontsize=8)
    for one in axes[len(panels) :]:
        one.set_visible(False)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=policy)
        for policy, colour in colours.items()
    ]
    beside = min(4, 2 * columns)
    figure.legend(
        handles=handles, loc="outside lower left", ncols=beside, frameon=False, fontsize=8
    )
    figure.savefig(file, dpi=120)
