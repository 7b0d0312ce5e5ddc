# SPDX-License-Identifier: Apache-2.0
"""Charts of what happened to the experts of one arm."""

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
from markupsafe import Markup

from eval.activity.placements import Load
from eval.activity.timeline import Rearrangement
from eval.report.svg import bars, marks
from vllm_eplb_plugin.simulation.drawing import (
    Chart,
    Scale,
    Tick,
    dots,
    polyline,
    round_step,
    rule,
    scale_to_one,
)

DOTS_UP_TO = 150
"""More rearrangements are drawn as a band between the two lines."""
_HISTOGRAM_BARS = 30
_POINTS_A_LAYER = 32


def lowest_balancedness(done: Sequence[Rearrangement]) -> float:
    """The lowest that a chart of these has to show."""
    values = (
        (one.balancedness_before, one.balancedness_expected, one.balancedness_unmoved)
        for one in done
    )
    return min(value for three in values for value in three if value is not None)


def balancedness_scale(lowest: float) -> Scale:
    """From a round number below ``lowest`` to 1, with room for marks at the bottom."""
    return scale_to_one(lowest, room=1.1)


def time_scale(done: Sequence[Rearrangement], others: Sequence[float] = ()) -> Scale:
    """From the first question to the last outcome, in seconds."""
    return Scale(0, max([*(one.time for one in done), *others]) * 1.01 or 1)


def balancedness_chart(
    done: Sequence[Rearrangement], value: Scale, others: Sequence[float] = ()
) -> Chart:
    """Balancedness over time: a step up at each rearrangement, a slope as the load changes.

    Args:
        done: Those that finished.
        value: Of balancedness.
        others: When others ended without having finished, in seconds since the first question.
    """
    time = time_scale(done, others)
    before = [one.balancedness_before for one in done]
    expected = [one.balancedness_expected for one in done]
    unmoved = [
        (one.time, one.balancedness_unmoved) for one in done if one.balancedness_unmoved is not None
    ]

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
    few = len(done) <= DOTS_UP_TO
    if few:
        parts.append(polyline(saw, "saw"))
        parts.append(dots(saw[0::2], "dot before"))
        parts.append(dots(saw[1::2], "dot expected"))
    else:
        parts.append(polyline([*saw[0::2], *saw[-1::-2]], "band"))
    times = (time.percent(one.time) for one in done)
    parts.append(marks(times, "mark" if few else "mark many"))
    if others:
        parts.append(marks(map(time.percent, others), "mark other"))
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
    relative = _over_mean(-np.sort(-expert_load, axis=1))
    experts = relative.shape[1]
    # A few experts have most of the load: the first ones get the most room.
    place = Scale(0, math.log10(max(experts, 2)))
    chosen = np.unique(np.geomspace(1, experts, _POINTS_A_LAYER).astype(int))
    multiple = Scale(0, max(float(relative.max()) * 1.02, 1.5))
    drawing = [rule(tick.percent, "grid") for tick in multiple.ticks(4)]
    drawing += [
        polyline(
            ((place.percent(math.log10(n)), multiple.percent(layer[n - 1])) for n in chosen),
            "layer",
        )
        for layer in relative
    ]
    drawing.append(rule(multiple.percent(1), "mean"))
    ticks = [
        Tick(place.percent(math.log10(n)), str(n))
        for power in (1, 10, 100, 1000)
        for n in (power, 2 * power, 5 * power)
        if n <= experts
    ]
    hottest = relative[:, 0]
    described = (
        f"The most loaded of {experts} experts gets {hottest.min():.1f} to {hottest.max():.1f} "
        f"times the mean, depending on the layer."
    )
    return Chart(
        Markup("").join(drawing), described, ticks, multiple.ticks(4, "x"),
        "experts, from the most loaded", "load over mean",
    )  # fmt: skip


def rank_load_chart(unmoved: Load, served: Load) -> Chart:
    """The most loaded rank of each layer, as multiples of the mean, without moving and with."""
    highest = [_over_mean(by_rank).max(axis=1) for by_rank in (unmoved, served)]
    multiple = Scale(0, max(float(np.max(highest)) * 1.05, 1.2))
    layers = len(unmoved)
    drawing = [rule(tick.percent, "grid") for tick in multiple.ticks(4)]
    for heights, css_class, gap in zip(
        highest, ("bar unmoved", "bar served"), (0.2, 0.5), strict=True
    ):
        drawing.append(bars([multiple.percent(float(one)) for one in heights], css_class, gap))
    drawing.append(rule(multiple.percent(1), "mean"))
    centres = Scale(-0.5, layers - 0.5)
    step = max(1, int(round_step(layers / 8)))
    described = (
        f"Mean over {layers} layers: {np.mean(highest[0]):.2f} times the mean load had the first "
        f"placement stayed, {np.mean(highest[1]):.2f} times as served."
    )
    return Chart(
        Markup("").join(drawing),
        described,
        [Tick(centres.percent(layer), str(layer)) for layer in range(0, layers, step)],
        multiple.ticks(4, "x"),
        "layer",
        "load over mean",
    )


def _over_mean(load: Load) -> Load:
    mean = load.mean(axis=1, keepdims=True)
    multiples: Load = load / np.where(mean > 0, mean, 1)
    return multiples
