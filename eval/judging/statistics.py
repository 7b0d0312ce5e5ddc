# SPDX-License-Identifier: Apache-2.0
"""What paired answers, right or wrong, say about a loss of accuracy (docs/statistics.md)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtrc, betainc, betaincinv, ndtri

CONFIDENCE = 0.95
"""Of every bound."""

_TINY = 1e-300
_TOLERANCE = 1e-10
"""Of a bound, as a share of the questions."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_QUANTILES, _QUANTILE_WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


class Interval(NamedTuple):
    """Between two shares."""

    low: float
    high: float


class Pairs(NamedTuple):
    """The same questions, asked twice; the four counts add up to the questions."""

    both: int
    """Right both times."""
    lost: int
    """Right the first time only."""
    won: int
    """Right the second time only."""
    neither: int

    @property
    def questions(self) -> int:
        """All of them."""
        return sum(self)

    @property
    def flips(self) -> int:
        """Questions that are right only once."""
        return self.lost + self.won

    @property
    def loss(self) -> float:
        """Accuracy of the first time less that of the second, as a share of the questions."""
        return (self.lost - self.won) / self.questions


def pair(first: Sequence[bool], second: Sequence[bool]) -> Pairs:
    """Count two sequences of right and wrong answers to the same questions, in one order."""
    before, after = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if before.shape != after.shape:
        raise ValueError(f"{len(first)} answers cannot be paired with {len(second)}")
    counts = (before & after, before & ~after, ~before & after, ~before & ~after)
    return Pairs(*(int(count.sum()) for count in counts))


def loss_p_value(pairs: Pairs) -> float:
    """The exact one-sided McNemar test: how probable so many lost answers are without a loss."""
    return _at_least(pairs.lost, pairs.flips)


def difference_p_value(pairs: Pairs) -> float:
    """The exact two-sided McNemar test."""
    return min(1.0, 2 * _at_least(max(pairs.lost, pairs.won), pairs.flips))


def wilson_interval(right: int, questions: int, confidence: float = CONFIDENCE) -> Interval:
    """The interval of Wilson (1927), which keeps its level near 0 and 1; all there is at 0 of 0."""
    if not questions:
        return Interval(0.0, 1.0)
    share, z = right / questions, float(ndtri((1 + confidence) / 2))
    scale = 1 + z * z / questions
    middle = share + z * z / (2 * questions)
    half = z * math.sqrt(share * (1 - share) / questions + z * z / (4 * questions * questions))
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def smallest_share(found: int, among: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound of Clopper and Pearson (1934): what share is there at least."""
    return float(betaincinv(found, among - found + 1, 1 - confidence)) if found else 0.0


def largest_share(found: int, among: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper bound of Clopper and Pearson (1934)."""
    return float(betaincinv(found + 1, among - found, confidence)) if found < among else 1.0


def largest_loss(pairs: Pairs, confidence: float = CONFIDENCE) -> float:
    """The largest loss, as a share of the questions, that the answers do not exclude.

    The one-sided upper confidence bound of Fay and Lumbard, "Confidence intervals for difference
    in proportions for matched pairs compatible with exact McNemar's or sign tests", Statistics in
    Medicine 40 (2021), doi 10.1002/sim.8829: it melds the exact bounds of two binomial shares,
    that of the flips among the questions and that of the lost among the flips. Without a flip it
    is exact: 1 - (1 - confidence) ** (1 / questions).

    Returns:
        Between -1 and 1; negative when a gain is shown.
    """
    excluded, possible = 1.0, -1.0
    while excluded - possible > _TOLERANCE:
        middle = (excluded + possible) / 2
        if confidence_in(pairs, middle) >= confidence:
            excluded = middle
        else:
            possible = middle
    return excluded


def smallest_loss(pairs: Pairs, confidence: float = CONFIDENCE) -> float:
    """The lower bound to `largest_loss`: above 0 when a loss is shown."""
    return -largest_loss(pairs._replace(lost=pairs.won, won=pairs.lost), confidence)


def confidence_in(pairs: Pairs, loss: float) -> float:
    """The confidence with which the answers say that the loss is no larger than ``loss``."""
    lost, won = pairs.lost, pairs.won
    if not won:  # every flip is a lost answer, so their share is 1
        return float(_share_at_most(pairs, np.float64(loss))) if loss >= 0 else 0.0
    even: float = betainc(lost + 1, won, 0.5)
    # The bound of a product is taken with the larger share of flips where it is positive and with
    # the smaller one where it is negative, so each side has its own integral.
    if loss >= 0:
        share_lost = betaincinv(lost + 1, won, even + (1 - even) * _QUANTILES)
        inside = _share_at_most(pairs, loss / np.maximum(2 * share_lost - 1, _TINY))
        return even + (1 - even) * float(_QUANTILE_WEIGHTS @ inside)
    share_lost = betaincinv(lost + 1, won, even * _QUANTILES)
    inside = _share_at_least(pairs, loss / np.minimum(2 * share_lost - 1, -_TINY))
    return even * float(_QUANTILE_WEIGHTS @ inside)


def _at_least(heads: int, coins: int) -> float:
    """How probable so many heads of fair coins are."""
    return float(bdtrc(heads - 1, coins, 0.5)) if heads else 1.0


def _share_at_most(pairs: Pairs, share: Any) -> Any:
    """Confidence that the share of flips is at most ``share``."""
    if pairs.flips == pairs.questions:
        return np.asarray(share >= 1, dtype=float)
    return betainc(pairs.flips + 1, pairs.questions - pairs.flips, np.clip(share, 0, 1))


def _share_at_least(pairs: Pairs, share: Any) -> Any:
    """Confidence that the share of flips is at least ``share``."""
    shape = pairs.flips, pairs.questions - pairs.flips + 1
    return 1 - betainc(*shape, np.clip(share, 0, 1))
