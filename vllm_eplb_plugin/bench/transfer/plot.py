# SPDX-License-Identifier: Apache-2.0
"""How long a layer takes by each way, drawn by matplotlib."""

from pathlib import Path
from typing import Any

from vllm_eplb_plugin.bench.transfer.task import Answer, Measured, Task

_COLOURS = {
    "gloo": "#b0413e",
    "nccl": "#c48a2c",
    "pynccl": "#7a5c9e",
    "nixl": "#4f8a4c",
    "peers": "#2f6f9f",
}


def plot_transfers(answer: Answer, task: Task, file: Path) -> None:
    """Draw a panel for each shape: milliseconds for a layer, by what moves and how."""
    from matplotlib.figure import Figure

    shapes = [[row for row in answer.rows if row.shape == shape.name] for shape in task.shapes]
    heights = [len(rows) + 1 for rows in shapes]
    figure = Figure(figsize=(9, 1.4 + 0.32 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(shapes), 1, squeeze=False, height_ratios=heights, sharex=True)
    for shape, rows, axes in zip(task.shapes, shapes, panels[:, 0], strict=True):
        layers = answer.layers[shape.name]
        axes.set_title(f"{shape}; {task.ranks} ranks, {layers} layers", loc="left", fontsize=9)
        _draw(rows, answer, axes)
    panels[-1, 0].set_xlabel(
        "ms for a layer: transfer and buffer into weights "
        "(median; bars from 10 to 90 of 100 calls; | the floor)"
    )
    figure.savefig(file, dpi=120)


def _draw(rows: list[Measured], answer: Answer, axes: Any) -> None:
    for place, row in enumerate(reversed(rows)):
        ends = [row.seconds["layer"][end] * 1e3 for end in ("p10", "p90")]
        middle, colour = row.whole * 1e3, _COLOURS[row.way]
        axes.plot(ends, [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot(middle, place, "o", color=colour, markersize=6)
        axes.plot(answer.rates.floor(row.nbytes) * 1e3, place, "|", color="#5d5d5d", markersize=12)
        axes.annotate(
            f"{middle:.3g}",
            (ends[1], place),
            (6, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
        )
    names = [f"{row.share} ({row.received} of {row.slots}), {row.way}" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
