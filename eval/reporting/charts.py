# SPDX-License-Identifier: Apache-2.0
"""Charts of what happened to the experts of one arm."""

from collections.abc import Sequence
from statistics import median

import numpy as np
from markupsafe import Markup

from eval.reporting.load import Load
from eval.reporting.svg import Chart, Scale, bars, dots, path, polyline, round_step, rule
from eval.reporting.timeline import Rearrangement

_DOTS_UP_TO = 150
"""More rearrangements are drawn as a line only."""
_HISTOGRAM_BARS = 30
_POINTS_A_LAYER = 64


def balancedness_chart(done: Sequence[Rearrangement]) -> Chart:
    """Balancedness over time: a step up at each rearrangement, a slope as the load changes."""
    time = Scale(0, max(one.time for one in done) * 1.01 or 1)
    before = [one.balancedness_before for one in done]
    expected = [one.balancedness_expected for one in done]
    unmoved = [
        (one.time, one.balancedness_unmoved) for one in done if one.balancedness_unmoved is not None
    ]
    lowest = min([*before, *expected, *(value for _, value in unmoved)])
    step = round_step(max(1 - lowest, 1e-3) / 4)
    value = Scale(max(0.0, 1 - step * int((1 - lowest) / step + 1)), 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return time.percent(x), value.percent(y)

    saw = [
        place(one.time, y)
        for one in done
        for y in (one.balancedness_before, one.balancedness_expected)
    ]
    parts = [rule(tick.percent, "grid") for tick in value.ticks(4)]
    if unmoved:
        parts.append(polyline((place(*point) for point in unmoved), "unmoved"))
    parts.append(polyline(saw, "saw"))
    if len(done) <= _DOTS_UP_TO:
        parts.append(dots(saw[0::2], "dot before"))
        parts.append(dots(saw[1::2], "dot expected"))
    marks = (f"M{time.percent(one.time):.2f} 100v-5" for one in done)
    parts.append(path("".join(marks), "mark"))
    described = (
        f"{len(done)} rearrangements. Balancedness before: median {median(before):.3f}, lowest "
        f"{min(before):.3f}; expected after: median {median(expected):.3f}."
    )
    if unmoved:
        described += f" Had nothing moved: median {median(y for _, y in unmoved):.3f}."
    return Chart(
        Markup("").join(parts), described, time.ticks(5), value.ticks(4),
        "seconds since the first question", "balancedness",
    )  # fmt: skip


def seconds_chart(seconds: Sequence[float]) -> Chart:
    """How long rearrangements took, as a histogram."""
    span = Scale(0, max(max(seconds) * 1.001, 1e-6))
    counts, _ = np.histogram(seconds, bins=_HISTOGRAM_BARS, range=(span.low, span.high))
    count = Scale(0, max(int(counts.max()), 1))
    drawing = [rule(tick.percent, "grid") for tick in count.ticks(3)]
    drawing.append(bars([count.percent(float(n)) for n in counts], "bar"))
    described = f"Histogram of {len(seconds)} rearrangements by the seconds they took."
    return Chart(
        Markup("").join(drawing), described, span.ticks(5), count.ticks(3),
        "seconds of a rearrangement", "rearrangements",
    )  # fmt: skip


def sorted_load_chart(expert_load: Load) -> Chart:
    """Each layer's experts from the most loaded to the least, as multiples of the mean."""
    descending = -np.sort(-expert_load, axis=1)
    mean = descending.mean(axis=1, keepdims=True)
    relative = descending / np.where(mean > 0, mean, 1)
    experts = relative.shape[1]
    chosen = np.unique(np.linspace(0, experts - 1, min(experts, _POINTS_A_LAYER)).astype(int))
    multiple = Scale(0, max(float(relative.max()) * 1.02, 1.5))
    place = Scale(1, max(experts, 2))
    drawing = [rule(tick.percent, "grid") for tick in multiple.ticks(4)]
    drawing += [
        polyline(((place.percent(i + 1), multiple.percent(layer[i])) for i in chosen), "layer")
        for layer in relative
    ]
    drawing.append(rule(multiple.percent(1), "mean"))
    hottest = relative[:, 0]
    described = (
        f"The most loaded of {experts} experts gets {hottest.min():.1f} to {hottest.max():.1f} "
        f"times the mean, depending on the layer."
    )
    return Chart(
        Markup("").join(drawing), described, place.ticks(5), multiple.ticks(4, "x"),
        "experts, from the most loaded", "load over mean",
    )  # fmt: skip


def rank_load_chart(unmoved: Load, served: Load) -> Chart:
    """Load of each rank over all layers, as multiples of the mean, without moving and with."""
    pairs = np.stack([unmoved.sum(axis=0), served.sum(axis=0)])
    mean = pairs.mean(axis=1, keepdims=True)
    relative = pairs / np.where(mean > 0, mean, 1)
    multiple = Scale(0, max(float(relative.max()) * 1.05, 1.2))
    ranks = relative.shape[1]
    drawing = [rule(tick.percent, "grid") for tick in multiple.ticks(4)]
    for row, css_class, gap in ((0, "bar unmoved", 0.2), (1, "bar served", 0.5)):
        heights = [multiple.percent(float(load)) for load in relative[row]]
        drawing.append(bars(heights, css_class, gap))
    drawing.append(rule(multiple.percent(1), "mean"))
    centres = Scale(-0.5, ranks - 0.5)
    shown = range(0, ranks, max(1, int(round_step(ranks / 8))))
    described = (
        f"Most loaded rank: {relative[0].max():.2f} times the mean had nothing moved, "
        f"{relative[1].max():.2f} times as served."
    )
    ticks = [tick for tick in centres.ticks(8) if round(float(tick.label)) in shown]
    return Chart(
        Markup("").join(drawing), described, ticks, multiple.ticks(4, "x"), "EP rank",
        "load over mean",
    )  # fmt: skip
