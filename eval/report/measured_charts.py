# SPDX-License-Identifier: Apache-2.0
"""Charts of latency and stress runs."""

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from eval.report.latency import LatencyView
from eval.results.latency import Distribution
from eval.results.memory import MemoryUse
from vllm_eplb_plugin.simulation.drawing import Chart, Point, Scale, Tick, polyline

_SHOWN_PERCENT = 99.95
"""Above it a few times decide."""
_PERCENTS = (0, 50, 90, 99, 99.9)
_COLOURS = 4


def colours(names: Sequence[str]) -> dict[str, str]:
    """A CSS class for each arm; arms are in the order of the run."""
    others = [name for name in names if name != "off"]
    return {"off": "c0"} | {name: f"c{1 + index % _COLOURS}" for index, name in enumerate(others)}


def latency_charts(view: LatencyView) -> Iterator[Chart]:
    """How much of the time stays below what, towards the slowest, on logarithmic scales."""
    ink = colours([column.name for column in view.columns])
    for title, times in (
        ("inside EplbState.step", [one.times.state_manager for one in view.columns]),
        ("between two tokens", [one.times.between_tokens for one in view.columns]),
    ):
        found = {column.name: one for column, one in zip(view.columns, times, strict=True) if one}
        if found:
            yield _distributions(title, found, ink)


def memory_charts(memory: MemoryUse) -> Iterator[Chart]:
    """Memory, threads, open files and rearrangements over time."""
    samples = memory.samples
    minutes = [sample.seconds / 60 for sample in samples]
    for title, values in (
        ("GPU memory, GiB", [one.gpu and one.gpu / 1024 for one in samples]),
        ("host memory, GiB", [one.host / 1024 for one in samples]),
        ("threads", [one.threads for one in samples]),
        ("open files and connections", [one.descriptors for one in samples]),
        ("rearrangements finished", [one.rearrangements for one in samples]),
    ):
        points = [(x, float(y)) for x, y in zip(minutes, values, strict=True) if y is not None]
        if len(points) > 1 and points[-1][0] > points[0][0]:
            yield _over_time(title, points)


def _distributions(title: str, found: dict[str, Distribution], ink: dict[str, str]) -> Chart:
    curves = {
        name: [(percent, ms) for percent, ms in one.curve if percent < _SHOWN_PERCENT and ms > 0]
        for name, one in found.items()
    }
    all_ms = [ms for curve in curves.values() for _, ms in curve] or [1.0]
    low, high = math.log10(min(all_ms)), math.log10(max(all_ms))
    time = Scale(low - 0.05, high + 0.05)
    # Of the last percents, the distance to 100.
    share = Scale(-2, -math.log10(100 - _SHOWN_PERCENT))
    drawing = Markup("").join(
        polyline(
            [(_share(share, percent), time.percent(math.log10(ms))) for percent, ms in curve],
            ink[name],
        )
        for name, curve in curves.items()
        if curve
    )
    names = ", ".join(f"{name} {one.p99:.1f} ms" for name, one in found.items())
    return Chart(
        drawing,
        f"Time {title}: 99 percent stay below {names}",
        [Tick(_share(share, percent), f"{percent:g}") for percent in _PERCENTS],
        list(_decades(time)),
        "percent of the times stay below",
        f"ms {title}",
    )


def _share(scale: Scale, percent: float) -> float:
    return scale.percent(-math.log10(100 - percent))


def _decades(time: Scale) -> Iterator[Tick]:
    for decade in range(math.floor(time.low), math.ceil(time.high) + 1):
        for factor in (1, 2, 5):
            place = decade + math.log10(factor)
            if time.low <= place <= time.high:
                yield Tick(time.percent(place), f"{factor * 10.0**decade:g}")


def _over_time(title: str, points: Sequence[Point]) -> Chart:
    time = Scale(0, points[-1][0])
    value = Scale(0, 1.15 * max(y for _, y in points) or 1)
    return Chart(
        polyline([(time.percent(x), value.percent(y)) for x, y in points], "c1"),
        f"{title}: {points[0][1]:.1f} at first, {points[-1][1]:.1f} at last",
        time.ticks(4),
        value.ticks(4),
        "minutes under load",
        title,
    )
