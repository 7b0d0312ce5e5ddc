# SPDX-License-Identifier: Apache-2.0
"""Memory and rearrangements over time, drawn."""

from pathlib import Path
from typing import NamedTuple

from eval.errors import EvaluationError
from eval.report.figure import finish_axes, new_figure, save
from eval.results.memory import MemoryUse
from eval.results.schema import ArmRun


class _Panel(NamedTuple):
    part: str
    """Of a sample."""
    title: str
    unit: int
    """What is drawn as 1."""


_PANELS = (
    _Panel("gpu", "GPU memory of the server, GiB", 1024),
    _Panel("host", "host memory of the server, GiB", 1024),
    _Panel("rearrangements", "rearrangements finished", 1),
)


def write_plot(arm: ArmRun, file: Path) -> None:
    """Draw what the server's processes had, and how often experts had moved by then.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    memory = arm.memory
    points = {panel: _points(memory, panel) if memory else [] for panel in _PANELS}
    drawn = [panel for panel in _PANELS if points[panel]]
    if memory is None or not drawn:
        raise EvaluationError("--plot: the server ended before its memory was sampled")
    growth = {"gpu": memory.gpu_growth_mib, "host": memory.host_growth_mib}
    figure = new_figure(4.6 * len(drawn), 3.6)
    for axes, panel in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        axes.plot(*zip(*points[panel], strict=True), color="#2f6f9f", lw=1.8)
        axes.set_ylim(0, 1.15 * max(value for _, value in points[panel]) or 1)
        axes.set_xlabel("minutes under load")
        grown = growth.get(panel.part)
        more = "" if grown is None else f" ({grown:+.0f} MiB)"
        finish_axes(axes, f"{panel.title}{more}")
    save(figure, file)


def _points(memory: MemoryUse, panel: _Panel) -> list[tuple[float, float]]:
    """Minutes and values; empty if there are none."""
    return [
        (sample.seconds / 60, value / panel.unit)
        for sample in memory.samples
        if (value := getattr(sample, panel.part)) is not None
    ]
