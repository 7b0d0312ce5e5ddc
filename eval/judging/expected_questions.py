# SPDX-License-Identifier: Apache-2.0
"""How many questions are asked until a loss of the margin is excluded. Pure functions."""

from collections.abc import Iterator
from math import lgamma
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtrc, xlog1py, xlogy

from eval.judging.sequential import HALF, capital, looks
from eval.judging.statistics import Pairs

_NEGLIGIBLE = 1e-9


class Chances(NamedTuple):
    """Of one question's answers."""

    lost: float
    won: float

    @property
    def same(self) -> float:
        """Right both times, or wrong."""
        return 1 - self.lost - self.won


def expected_questions(margin: float, most: int, flips: float) -> float:
    """The mean where nothing is lost and a share ``flips`` of the answers flips.

    Exact, by the probabilities of all counts at each look, but for the runs that show a loss by
    chance, which end sooner.
    """
    chances = Chances(flips / 2, flips / 2)
    stopped = dict(excluded_at(margin, most, chances))
    going_on = 1 - sum(stopped.values())
    return sum(asked * share for asked, share in stopped.items()) + most * going_on


def excluded_at(margin: float, most: int, chances: Chances) -> Iterator[tuple[int, float]]:
    """After how many questions betting excludes a loss of ``margin``, with the probability."""
    size = _most_of(most, max(chances.lost, chances.won)) + 1
    lost, won = np.indices((size, size))
    going_on = np.zeros((size, size))
    going_on[0, 0] = 1.0
    asked = 0
    for look in looks(most, most):
        going_on = _with_more(going_on, look - asked, chances)
        asked = look
        counts = Pairs(0, lost, won, np.maximum(asked - lost - won, 0))
        decided = (capital(counts, margin) >= 1 / HALF) & (lost + won <= asked)
        yield asked, float(going_on[decided].sum())
        going_on = np.where(decided, 0.0, going_on)


def _with_more(before: Any, questions: int, chances: Chances) -> Any:
    """Probabilities of ``[lost, won]`` after so many more questions."""
    after = np.zeros_like(before)
    size = min(len(before) - 1, _most_of(questions, max(chances.lost, chances.won)))
    for lost in range(size + 1):
        for won in range(min(size, questions - lost) + 1):
            share = _probability(lost, won, questions, chances)
            after[lost:, won:] += share * before[: len(before) - lost, : len(before) - won]
    return after


def _probability(lost: int, won: int, questions: int, chances: Chances) -> float:
    same = questions - lost - won
    ways = lgamma(questions + 1) - lgamma(lost + 1) - lgamma(won + 1) - lgamma(same + 1)
    weighed = xlogy(lost, chances.lost) + xlogy(won, chances.won)
    return float(np.exp(ways + weighed + xlog1py(same, chances.same - 1)))


def _most_of(questions: int, share: float) -> int:
    """The fewest of so many questions that are exceeded almost never."""
    counts = np.arange(questions + 1)
    return int(np.argmax(bdtrc(counts, questions, share) <= _NEGLIGIBLE))
