# SPDX-License-Identifier: Apache-2.0
"""How often the paired test fails or does not pass a run, computed exactly (docs/statistics.md)."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrc, gammaln, xlog1py, xlogy

from eval.judging.statistics import CONFIDENCE, Pairs, confidence_in

_NEGLIGIBLE = 1e-9
_POINTS = 0.0001
"""Losses are told apart by a hundredth of a point."""


class PairedTest(NamedTuple):
    """When paired answers are failed, and when they do not pass."""

    alpha: float
    """Failed: so many lost answers are less probable than this without a loss."""
    margin: float | None = None
    """Not passed: a loss of this share of the questions is not excluded; none: no margin."""


class Model(NamedTuple):
    """Questions whose answers flip by chance, and a true loss among them."""

    questions: int
    flips: float
    """Share of the questions that are right only once; at least ``loss``."""
    loss: float = 0.0


def most_lost(test: PairedTest, questions: int, flips: int) -> int:
    """Among ``flips`` answers, the most that may be lost in a run that passes; -1: none may."""
    allowed = _exceeded(test.alpha, flips, 0.5) if flips else 0
    if test.margin is None:
        return allowed
    fewer, more = -1, allowed
    while fewer < more:
        lost = (fewer + more + 1) // 2
        pairs = Pairs(0, lost, flips - lost, questions - flips)
        if confidence_in(pairs, test.margin) >= CONFIDENCE:
            fewer = lost
        else:
            more = lost - 1
    return fewer


def probability_not_passed(test: PairedTest, model: Model) -> float:
    """Sum over all numbers of flips and of lost answers among them."""
    share = max(model.flips, model.loss)
    if share == 0:
        return float(most_lost(test, model.questions, 0) < 0)
    limits = _limits(test, model.questions, _exceeded(_NEGLIGIBLE, model.questions, share))
    flips = np.arange(len(limits))
    lost = np.full(len(limits), (share + model.loss) / (2 * share))
    passed = np.where(limits < 0, 0.0, bdtr(np.minimum(limits, flips).clip(min=0), flips, lost))
    return 1 - float(_probabilities(flips, model.questions, share) @ passed)


def detectable_loss(test: PairedTest, model: Model, power: float = 0.8) -> float | None:
    """The smallest true loss, as a share, that ``test`` notices with probability ``power``.

    Returns:
        None: not even all answers lost would be noticed.
    """
    found, missed = 1.0, 0.0
    if probability_not_passed(test, model._replace(loss=found)) < power:
        return None
    while found - missed > _POINTS:
        middle = (found + missed) / 2
        if probability_not_passed(test, model._replace(loss=middle)) >= power:
            found = middle
        else:
            missed = middle
    return found


def threshold_fails(questions: int, accuracy: float, threshold: float) -> float:
    """How often a gate fails that only asks for an accuracy of at least ``threshold``."""
    below = int(np.ceil(round(threshold * questions, 6))) - 1
    return float(bdtr(below, questions, accuracy)) if below >= 0 else 0.0


def _exceeded(probability: float, trials: int, share: float) -> int:
    """The fewest successes that are exceeded no more often than with ``probability``."""
    successes = np.arange(trials + 1)
    return int(np.argmax(bdtrc(successes, trials, share) <= probability))


def _probabilities(successes: Any, trials: int, share: float) -> Any:
    """Of each number of successes."""
    ways = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
    return np.exp(ways + xlogy(successes, share) + xlog1py(trials - successes, -share))


@cache
def _limits(test: PairedTest, questions: int, flips: int) -> Any:
    """`most_lost` for 0 up to ``flips`` flips."""
    return np.array([most_lost(test, questions, count) for count in range(flips + 1)])
