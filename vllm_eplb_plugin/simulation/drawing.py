# SPDX-License-Identifier: Apache-2.0
"""Charts whose drawing stretches with the page while their text does not; reports draw so, too.

A drawing is an SVG of 100 x 100 units without text and with strokes that keep their width; ticks
are HTML beside it, placed in per cent (chart.html.j2). Colours are CSS classes, so that a theme can
change them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]
"""In per cent, y upwards."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    percent: float
    label: str


@dataclass(frozen=True)
class Scale:
    """A linear axis."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Where a value is, from 0 to 100."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 4, unit: str = "") -> list[Tick]:
        """About so many round numbers."""
        step = round_step((self.high - self.low) / count)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [index * step for index in range(first, last + 1)]
        return [Tick(self.percent(value), f"{value:.{digits}f}{unit}") for value in values]


@dataclass(frozen=True)
class Chart:
    """A drawing and its axes: what the template needs to place them."""

    drawing: Markup
    description: str
    """Says in words what is to be seen."""
    x: Sequence[Tick]
    y: Sequence[Tick]
    x_title: str
    y_title: str


def scale_to_one(lowest: float, room: float) -> Scale:
    """From a round number below the lowest value to 1.

    Args:
        lowest: At most 1.
        room: How many times the span of the values there has to be at least.
    """
    span = max(1 - lowest, 1e-3) * room
    step = round_step(span / 4)
    return Scale(max(0.0, 1 - step * math.ceil(span / step)), 1)


def round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... and their fractions."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def polyline(points: Iterable[Point], css_class: str) -> Markup:
    """A line through points."""
    steps = "L".join(f"{number(x)} {number(100 - y)}" for x, y in points)
    return path(f"M{steps}", css_class)


def dots(points: Iterable[Point], css_class: str) -> Markup:
    """Round dots: lines without length, whose ends are round in every stretching."""
    return path("".join(f"M{number(x)} {number(100 - y)}h0" for x, y in points), css_class)


def rule(percent: float, css_class: str) -> Markup:
    """A horizontal line."""
    return path(f"M0 {number(100 - percent)}H100", css_class)


def path(commands: str, css_class: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(css_class, commands)


def number(value: float) -> str:
    """Round a coordinate: a thousandth of the width is about what a screen can show."""
    return f"{value:.1f}".removesuffix(".0")
