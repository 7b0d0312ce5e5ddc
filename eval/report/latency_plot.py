# SPDX-License-Identifier: Apache-2.0
"""The distributions of a run, drawn."""

from pathlib import Path

from eval.report.figure import finish_axes, new_figure, save
from eval.results.schema import Result

# Sync is a shade lighter than async.
_COLORS = {
    "off": "#7a7a7a",
    "stock-sync": "#dc9a97",
    "stock-async": "#b0413e",
    "sync": "#8fb8d3",
    "async": "#2f6f9f",
    "sync-incremental": "#9cc69b",
    "async-incremental": "#3d8b40",
}
_PANELS = (
    ("state_manager", "time inside EplbState.step while rearranging"),
    ("between_tokens", "time between two tokens of a completion"),
)


def write_plot(result: Result, file: Path) -> None:
    """Draw how much of the time stays below what, towards the slowest.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    figure = new_figure(11, 4.2)
    for axes, (part, title) in zip(figure.subplots(1, 2), _PANELS, strict=True):
        for arm in result.arms:
            found = getattr(arm.latency, part, None)
            if found is None:
                continue
            # Of the last percents, the distance to 100 on a logarithmic scale.
            points = [(100 - percent, time) for percent, time in found.curve if percent < 99.95]
            color = _COLORS.get(arm.name)
            axes.plot(*zip(*points, strict=True), color=color, label=arm.name, lw=1.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.set_xticks([50, 10, 1, 0.1], ["50", "90", "99", "99.9"])
        axes.set_xlim(100, 0.05)
        axes.minorticks_off()
        axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("percent of the times")
        axes.set_ylabel("stay below, ms")
        finish_axes(axes, title)
        axes.legend(frameon=False)
    save(figure, file)
