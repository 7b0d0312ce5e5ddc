# SPDX-License-Identifier: Apache-2.0
"""The geometry of charts whose drawing stretches with the page while their text does not.

A drawing is an SVG of 100 x 100 units without text and with strokes that keep their width; ticks
are HTML beside it, placed in per cent. Colours are CSS classes, so that a theme can change them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]


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
        """Where ``value`` is, from 0 to 100."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5, unit: str = "") -> list[Tick]:
        """About ``count`` round numbers."""
        step = round_step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [
            Tick(self.percent(index * step), f"{index * step:.{digits}f}{unit}")
            for index in range(first, last + 1)
        ]


@dataclass(frozen=True)
class Chart:
    """What the template needs to place a drawing and its axes."""

    drawing: Markup
    description: str
    """Says in words what is to be seen."""
    x: Sequence[Tick]
    y: Sequence[Tick]
    x_title: str
    y_title: str


def round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... and their fractions."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def polyline(points: Iterable[Point], css_class: str) -> Markup:
    """A line through points, in per cent with y upwards."""
    steps = "L".join(f"{_number(x)} {_number(100 - y)}" for x, y in points)
    return path(f"M{steps}", css_class)


def dots(points: Iterable[Point], css_class: str) -> Markup:
    """Round dots: lines without length, whose ends are round in every stretching."""
    return path("".join(f"M{_number(x)} {_number(100 - y)}h0" for x, y in points), css_class)


def stems(points: Iterable[Point], css_class: str) -> Markup:
    """Lines from the bottom up to points."""
    return path("".join(f"M{_number(x)} 100V{_number(100 - y)}" for x, y in points), css_class)


def marks(places: Iterable[float], css_class: str) -> Markup:
    """Short lines up from the bottom."""
    return path("".join(f"M{_number(x)} 100v-5" for x in places), css_class)


def bars(heights: Sequence[float], css_class: str, gap: float = 0.2) -> Markup:
    """Bars of heights in per cent, side by side over the whole width."""
    width = 100 / max(len(heights), 1)
    used = _number(width * (1 - gap))
    steps = (
        f"M{_number(index * width + width * gap / 2)} 100v{_number(-height)}h{used}V100z"
        for index, height in enumerate(heights)
        if height > 0
    )
    return path("".join(steps), css_class)


def path(commands: str, css_class: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(css_class, commands)


def rule(percent: float, css_class: str) -> Markup:
    """A horizontal line."""
    return path(f"M0 {_number(100 - percent)}H100", css_class)


def _number(value: float) -> str:
    # A thousandth of the width is about what a screen can show.
    return f"{value:.1f}".removesuffix(".0")
