# SPDX-License-Identifier: Apache-2.0
"""Rearrangements to draw, and where a drawing has what."""

import re
from typing import Any

from eval.activity.timeline import Rearrangement


def rearrangement(time: float, before: float, expected: float, **changes: Any) -> Rearrangement:
    values: dict[str, Any] = {
        "number": 1, "mode": "sync", "seconds": 0.1, "seconds_to_first_commit": None,
        "balancedness_unmoved": None, "slots_changed": 3, "bytes_sent": 8,
        "planned": None,
    }  # fmt: skip
    return Rearrangement(
        time=time, balancedness_before=before, balancedness_expected=expected, **values | changes
    )


def points(drawing: str, css_class: str) -> list[tuple[float, float]]:
    """Of all paths of a class, as the SVG has them: y from the top."""
    paths = re.findall(rf'<path class="{css_class}" d="([^"]*)"', drawing)
    numbers = re.findall(r"[ML](-?[\d.]+) (?:100V)?(-?[\d.]+)", "".join(paths))
    return [(float(x), float(y)) for x, y in numbers]
