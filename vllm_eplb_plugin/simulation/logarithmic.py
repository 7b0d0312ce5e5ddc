# SPDX-License-Identifier: Apache-2.0
"""The axis of bytes, of which there can be none."""

import math
from dataclasses import dataclass

from vllm_eplb_plugin.simulation.drawing import Tick


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
