# SPDX-License-Identifier: Apache-2.0
"""How many times as fast one arm was as another, over repeats, with an interval."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtrit

from eval.config.schema import BASELINE
from eval.judging.statistics import CONFIDENCE
from eval.results.schema import ArmRun
from eval.results.throughput import Measurement

LEAST_ROUNDS = 3
"""Of fewer, nothing is concluded."""


class Estimate(NamedTuple):
    """A mean over repeats, and the interval of Student's t around it."""

    mean: float
    low: float
    high: float
    repeats: int

    @property
    def enough(self) -> bool:
        """Whether rules may go by it."""
        return self.repeats >= LEAST_ROUNDS


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate | None:
    """Of values as they are; a single one has an interval without ends. None of none."""
    if not values:
        return None
    mean, repeats = fmean(values), len(values)
    if repeats == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    quantile = float(stdtrit(repeats - 1, (1 + confidence) / 2))
    half = quantile * stdev(values) / math.sqrt(repeats)
    return Estimate(mean, mean - half, mean + half, repeats)


def ratio_of(logs: Sequence[float]) -> Estimate | None:
    """The geometric mean of ratios whose logarithms are given, with the interval of these."""
    found = estimate(logs)
    if found is None:
        return None
    mean, low, high = (math.exp(one) for one in found[:3])
    return Estimate(mean, low, high, found.repeats)


def share_of_gain(logs: Sequence[float], ceiling: Sequence[float]) -> float:
    """Of the gain of a ceiling over ``off``, the share that an arm has: by mean logarithms."""
    return fmean(logs) / fmean(ceiling)


def faster_than_off(arms: Sequence[ArmRun], name: str, traffic: str) -> dict[int, float]:
    """Logarithms of an arm's tokens a second over those of ``off``, by round.

    Of ``off`` counts what was measured while the arm's server was up; if it was not up then, what
    was measured of it in the same round at another time.
    """
    off = _measured(arms, BASELINE, traffic)
    beside = {(one.group, one.round): one.tokens_per_second for one in off}
    at_another_time = {one.round: one.tokens_per_second for one in reversed(off)}
    found = {}
    for one in _measured(arms, name, traffic):
        reference = beside.get((one.group, one.round), at_another_time.get(one.round))
        if reference is not None:
            found[one.round] = math.log(one.tokens_per_second / reference)
    return found


def _measured(arms: Sequence[ArmRun], name: str, traffic: str) -> list[Measurement]:
    arm = next((arm for arm in arms if arm.name == name), None)
    return [one for one in arm.throughput if one.traffic == traffic] if arm else []


def difference(one: dict[int, float], other: dict[int, float]) -> list[float]:
    """Of rounds that both have."""
    return [one[number] - other[number] for number in sorted(one.keys() & other.keys())]
