# SPDX-License-Identifier: Apache-2.0
"""Charts of the page: a drawing of 100 x 100 units that stretches, and ticks beside it in HTML."""

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
class Chart:
    """A drawing and its axes."""

    drawing: Markup
    description: str
    """Says in words what is to be seen."""
    x: Sequence[Tick]
    y: Sequence[Tick]
    x_title: str
    y_title: str


@dataclass(frozen=True)
class Linear:
    """A linear axis."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Where a value is, from 0 to 100."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 4) -> list[Tick]:
        """About so many round numbers."""
        step = round_step((self.high - self.low) / count)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [index * step for index in range(first, last + 1)]
        return [Tick(self.percent(value), f"{value:.{digits}f}") for value in values]


@dataclass(frozen=True)
class Logarithmic:
    """A logarithmic axis with a place for 0 at its left end."""

    low: float
    """Above 0."""
    high: float

    def percent(self, value: float) -> float:
        """Where a value is, from 0 to 100."""
        if value <= 0:
            return 0.0
        return 8 + 92 * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[Tick]:
        """0, and powers of ten; on a short axis 2 and 5 times them, too."""
        factors = (1,) if self.high / self.low > 1000 else (1, 2, 5)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in factors]
        within = [value for value in values if self.low <= value <= self.high]
        return [Tick(0.0, "0"), *(Tick(self.percent(value), f"{value:g}") for value in within)]


def axis_to_one(values: Iterable[float]) -> Linear:
    """From a round number below the lowest value to 1."""
    span = max(1 - min(values, default=0.0), 1e-3) * 1.05
    step = round_step(span / 4)
    return Linear(max(0.0, 1 - step * math.ceil(span / step)), 1.0)


def round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... and their fractions."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def line(points: Iterable[Point], css_class: str) -> Markup:
    """A line through points."""
    steps = "L".join(f"{x:.1f} {100 - y:.1f}" for x, y in points)
    return _path(f"M{steps}", css_class)


def dots(points: Iterable[Point], css_class: str) -> Markup:
    """Round dots: lines without length, whose ends are round in every stretching."""
    return _path("".join(f"M{x:.1f} {100 - y:.1f}h0" for x, y in points), css_class)


def marks(places: Iterable[float], css_class: str) -> Markup:
    """Lines over the whole height."""
    return _path("".join(f"M{x:.1f} 0V100" for x in places), css_class)


def rules(ticks: Iterable[Tick], css_class: str) -> Markup:
    """Horizontal lines."""
    return _path("".join(f"M0 {100 - tick.percent:.1f}H100" for tick in ticks), css_class)


def _path(commands: str, css_class: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(css_class, commands)
