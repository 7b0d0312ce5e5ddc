# SPDX-License-Identifier: Apache-2.0
"""Shapes that only reports draw; the others are those of a simulation's page.

See `vllm_eplb_plugin.simulation.drawing`.
"""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from vllm_eplb_plugin.simulation.drawing import Point, number, path


def stems(points: Iterable[Point], css_class: str) -> Markup:
    """Lines from the bottom up to points."""
    return path("".join(f"M{number(x)} 100V{number(100 - y)}" for x, y in points), css_class)


def marks(places: Iterable[float], css_class: str) -> Markup:
    """Short lines up from the bottom."""
    return path("".join(f"M{number(x)} 100v-5" for x in places), css_class)


def bars(heights: Sequence[float], css_class: str, gap: float = 0.2) -> Markup:
    """Bars of heights in per cent, side by side over the whole width."""
    width = 100 / max(len(heights), 1)
    used = number(width * (1 - gap))
    steps = (
        f"M{number(index * width + width * gap / 2)} 100v{number(-height)}h{used}V100z"
        for index, height in enumerate(heights)
        if height > 0
    )
    return path("".join(steps), css_class)
