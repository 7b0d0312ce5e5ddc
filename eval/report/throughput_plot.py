# SPDX-License-Identifier: Apache-2.0
"""Tokens a second against arm ``off``, drawn."""

from pathlib import Path

from eval.config.schema import BASELINE
from eval.report.figure import finish_axes, new_figure, save
from eval.report.throughput import throughput_tables
from eval.results.schema import Result

_COLORS = ["#7a7a7a", "#b0413e", "#2f6f9f", "#3d8b40", "#c98a2b", "#7a5195", "#4fa3a5", "#9c6b4f"]


def write_plot(result: Result, file: Path) -> None:
    """Draw a bar for each traffic and arm, with its interval.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    tables = throughput_tables(result)
    names = [arm.name for arm in result.arms if arm.name != BASELINE]
    figure = new_figure(max(6.0, 2.2 * len(tables)), 4.2)
    axes = figure.subplots()
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        for number, table in enumerate(tables):
            times = next(one.times_off for one in table.columns if one.name == name)
            if times is None:
                continue
            ends = [[times.mean - times.low], [times.high - times.mean]]
            axes.bar(
                number + (place - (len(names) - 1) / 2) * width,
                times.mean,
                width,
                yerr=ends if times.repeats > 1 else None,
                capsize=2,
                color=_COLORS[place % len(_COLORS)],
                label=name if number == 0 else None,
            )
    axes.axhline(1, color="#333333", lw=1)
    axes.set_xticks(range(len(tables)), [table.name for table in tables])
    axes.set_ylabel(f"tokens a second, times {BASELINE}")
    finish_axes(axes, "")
    if names:
        axes.legend(frameon=False, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1))
    save(figure, file)
