# SPDX-License-Identifier: Apache-2.0
"""The least that a layer can take: its bytes over the link, and once more through the memory."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """What the machine was measured to copy, in bytes a second, on its slowest rank."""

    peer: float
    """A tensor from a peer's memory, all ranks at once."""
    memory: float
    """A tensor within a rank's own memory, all ranks at once."""

    def floor(self, received: int) -> float:
        """Seconds for bytes that come from peers into the buffer, and from there into the weights.

        Args:
            received: Bytes of the rank that receives most.
        """
        return received / self.peer + received / self.memory


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Give the median, and what 10 and 90 of 100 calls stayed below."""
    cuts = statistics.quantiles(seconds, n=10, method="inclusive")
    return {"p10": cuts[0], "median": statistics.median(seconds), "p90": cuts[-1]}
