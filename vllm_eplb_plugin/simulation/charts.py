# SPDX-License-Identifier: Apache-2.0
"""Charts of a simulation: balancedness against bytes moved, and over time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from vllm_eplb_plugin.planning.problem import Floats
from vllm_eplb_plugin.simulation.drawing import (
    Chart,
    Scale,
    Tick,
    dots,
    number,
    path,
    polyline,
    rule,
    scale_to_one,
)
from vllm_eplb_plugin.simulation.logarithmic import Logarithmic
from vllm_eplb_plugin.simulation.result import Simulated
from vllm_eplb_plugin.simulation.summary import Row

POINTS = 300
"""Of a line; more windows are drawn as means."""


@dataclass(frozen=True)
class FrontChart:
    """Balancedness against bytes, and the numbers of what nothing else beats."""

    chart: Chart
    labels: Sequence[tuple[float, float, int]]
    """Place in per cent from left and bottom, and the number of a combination of the front."""


def front_of(rows: Sequence[Row]) -> list[int]:
    """Find the rows than which no other is as balanced with fewer bytes; the fewest bytes first."""
    order = sorted(range(len(rows)), key=lambda at: (rows[at].bytes, -rows[at].as_served))
    front: list[int] = []
    for at in order:
        if not front or rows[at].as_served > rows[front[-1]].as_served:
            front.append(at)
    return front


def front_chart(rows: Sequence[Row], colours: dict[str, str]) -> FrontChart:
    """Draw each row as a dot, and a line through those of the front.

    Args:
        rows: Of one recording.
        colours: CSS classes by policy.
    """
    y, x = _balancedness_axis(row.as_served for row in rows), _bytes_axis(rows)
    places = [(x.percent(row.bytes / 1e9), y.percent(row.as_served)) for row in rows]
    front = front_of(rows)
    parts = [*_grid(y), polyline((places[at] for at in front), "unmoved")]
    for policy, colour in colours.items():
        mine = (place for place, row in zip(places, rows, strict=True) if row.policy == policy)
        parts.append(Markup('<g class="{}">{}</g>').format(colour, dots(mine, "dot")))
    described = (
        f"Balancedness of {len(rows)} combinations against gigabytes moved; on the front are "
        f"numbers {', '.join(str(at + 1) for at in front)}."
    )
    chart = Chart(
        Markup("").join(parts), described, x.ticks(), y.ticks(), "GB moved in all", "balancedness"
    )
    return FrontChart(chart, [(*places[at], at + 1) for at in front])


def _balancedness_axis(values: Iterable[float]) -> Scale:
    return scale_to_one(min(values, default=0.0), room=1.05)


def _bytes_axis(rows: Sequence[Row]) -> Logarithmic:
    moved = [row.bytes / 1e9 for row in rows if row.bytes]
    return Logarithmic(min(moved, default=0.1) / 1.3, max(moved, default=1.0) * 1.3)


def time_chart(simulated: Simulated, chosen: Sequence[int], colours: dict[str, str]) -> Chart:
    """Draw balancedness window by window, a line for each combination.

    Args:
        simulated: What was played.
        chosen: Numbers of the combinations.
        colours: CSS classes by policy.
    """
    windows = len(simulated.recording.windows)
    x = Scale(0, max(windows - 1, 1))
    of_all = [one.balancedness[1:] for one in simulated.played]
    y = _balancedness_axis(float(np.nanmin(one)) for one in of_all if not np.isnan(one).all())
    parts = [*_grid(y), _verticals(map(x.percent, simulated.changes), "change")]
    for at in chosen:
        policy = simulated.rows[at].policy
        places, values = _thinned(simulated.played[at].balancedness)
        points = [
            (x.percent(float(place)), y.percent(float(value)))
            for place, value in zip(places, values, strict=True)
            if not np.isnan(value)
        ]
        if points:
            parts.append(
                Markup('<g class="{}">{}</g>').format(colours[policy], polyline(points, ""))
            )
    described = "Balancedness of each window. " + "; ".join(
        f"{simulated.rows[at].policy}: mean {simulated.rows[at].as_served:.3f}" for at in chosen
    )
    return Chart(
        Markup("").join(parts), described, _steps(simulated, x), y.ticks(),
        "engine steps", "balancedness",
    )  # fmt: skip


def _grid(y: Scale) -> list[Markup]:
    return [rule(tick.percent, "grid") for tick in y.ticks()]


def _verticals(places: Iterable[float], css_class: str) -> Markup:
    """Lines over the whole height."""
    return path("".join(f"M{number(x)} 0V100" for x in places), css_class)


def _steps(simulated: Simulated, x: Scale) -> list[Tick]:
    windows = simulated.recording.windows
    places = sorted({round(part * (len(windows) - 1) / 4) for part in range(5)})
    return [Tick(x.percent(place), str(windows[place].step)) for place in places]


def _thinned(values: Floats) -> tuple[Floats, Floats]:
    """Means of neighbours, where there are more windows than a screen shows."""
    parts = np.array_split(np.arange(1, len(values)), min(POINTS, len(values) - 1))
    known = [part[~np.isnan(values[part])] for part in parts]
    means = [values[part].mean() if len(part) else np.nan for part in known]
    return np.array([part.mean() for part in parts]), np.array(means)
