# SPDX-License-Identifier: Apache-2.0
"""Times of two ways to do the same, taken in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

WARM_UP = 3


@dataclass
class Times:
    """The seconds that each of several calls took."""

    host: list[float] = field(default_factory=list)
    """Until the call returned: how long the calling thread is held."""
    done: list[float] = field(default_factory=list)
    """Until the device had done it."""

    def summary(self) -> dict[str, dict[str, float]]:
        """The median, and what 5 and 95 of 100 calls stayed below, in microseconds."""
        return {"host_us": _summary(self.host), "done_us": _summary(self.done)}


def difference(times: Times, other: Times) -> dict[str, float]:
    """Microseconds for which a call held the host longer than the other's of the same round."""
    return _summary([one - two for one, two in zip(times.host, other.host, strict=True)])


def _summary(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    values = {"p5": cuts[0], "median": statistics.median(seconds), "p95": cuts[-1]}
    return {name: round(value * 1e6, 3) for name, value in values.items()}


def alternate(
    ways: Mapping[str, Callable[[int], object]], rounds: int, device: torch.device
) -> dict[str, Times]:
    """Call every way once a round, so that a machine's moods meet all of them.

    Args:
        ways: Each is called with the number of the round.
        rounds: Rounds that are counted, after `WARM_UP` that are not.
        device: Waited for before and after every call.
    """
    times = {name: Times() for name in ways}
    for number in range(WARM_UP + rounds):
        for name, way in ways.items():
            _wait_for(device)
            started = time.perf_counter()
            way(number)
            returned = time.perf_counter()
            _wait_for(device)
            if number >= WARM_UP:
                times[name].host.append(returned - started)
                times[name].done.append(time.perf_counter() - started)
    return times


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
