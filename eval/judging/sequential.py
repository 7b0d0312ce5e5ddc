# SPDX-License-Identifier: Apache-2.0
"""When paired answers, looked at again and again, have decided a loss. Pure (docs/statistics.md).

Two tests look at the same answers, each with an error of its own that holds over all looks:

- **A loss is shown** by a group-sequential sign test. Without a loss each flip is as likely lost as
  won, however many flips there are, so the probability to cross the limit of a look is computed
  exactly, given the flips of that look and of those before it. The limits spend alpha as Lan and
  DeMets do, "Discrete sequential boundaries for clinical trials", Biometrika 70 (1983), by the
  power function of Kim and DeMets, Biometrika 74 (1987), with exponent 2. What else ends a run can
  only make a crossing rarer. Only half of alpha is spent, so that of 2,000 runs without a loss no
  more than its share fail, not only of infinitely many.
- **A loss of the margin is excluded** by betting against it (Waudby-Smith and Ramdas, "Estimating
  means of bounded random variables by betting", Journal of the Royal Statistical Society B 86
  (2024), doi 10.1093/jrsssb/qkad009). A capital that does not grow in the mean if the loss is the
  margin or more reaches c times its start with probability 1/c at most, at whichever look (Ville,
  1939). At the last question there is also the bound of one look, `statistics.largest_loss`. Each
  of the two gets half of the 5 %.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import xlog1py

from eval.judging.statistics import CONFIDENCE, Pairs, confidence_in, pair
from eval.judging.statistics import largest_loss as largest_loss_of_one_look

EVERY = 100
"""Questions from one look to the next."""

HALF = (1 - CONFIDENCE) / 2
"""Of passing a loss of the margin: as often at most on the way, and at the last question."""

_STAKES = (1.0, 0.6, 0.3)
"""Shares of the largest bet, with a third of the capital each: the first wins soonest where no
answer flips, the last where many do."""
_TOLERANCE = 1e-10

What = Literal["loss", "no loss", "undecided"]


class Design(NamedTuple):
    """What has to be decided, and by how many questions."""

    alpha: float
    """Probability of showing a loss where there is none, over all looks."""
    margin: float | None
    """The loss to exclude, as a share of the questions; none: none has to be."""
    most: int
    """All questions that there are."""


class Found(NamedTuple):
    """What the looks have shown."""

    what: What
    questions: int | None
    """Asked when that was first seen; none: undecided."""


def looks(most: int, asked: int) -> list[int]:
    """After how many questions there were looks, of ``asked`` and at most ``most``."""
    return [*range(EVERY, min(asked, most - 1) + 1, EVERY), *[most] * (asked >= most)]


def tables(first: Sequence[bool], second: Sequence[bool], most: int) -> list[Pairs]:
    """Right and wrong answers to the same questions, in order, counted at each look."""
    return [pair(first[:asked], second[:asked]) for asked in looks(most, len(first))]


def find(design: Design, seen: Sequence[Pairs]) -> Found:
    """What all looks together have shown: a loss counts, whenever it was.

    Args:
        design: What has to be decided.
        seen: The counts at each look, from the first on.
    """
    lost, excluded = loss_shown(design, seen), margin_excluded(design, seen)
    if lost is not None:
        return Found("loss", seen[lost].questions)
    if excluded is not None:
        return Found("no loss", seen[excluded].questions)
    return Found("undecided", None)


def allowed(design: Design, asked: int) -> float:
    """What of alpha may be spent until ``asked`` questions were asked."""
    return design.alpha / 2 * (asked / design.most) ** 2


def loss_shown(design: Design, seen: Sequence[Pairs]) -> int | None:
    """The first look, from 0, at which so many answers are lost as alpha does not allow."""
    # How probable each number of lost answers is, without a loss and without a crossing before.
    going_on, spent, flips = np.ones(1), 0.0, 0
    for number, pairs in enumerate(seen):
        going_on = np.convolve(going_on, _coins(pairs.flips - flips))
        flips = pairs.flips
        at_least = np.append(going_on[::-1].cumsum()[::-1], 0.0)
        limit = int(np.argmax(at_least < allowed(design, pairs.questions) - spent))
        if pairs.lost >= limit:
            return number
        spent += float(at_least[limit])
        going_on = going_on[:limit]
    return None


def margin_excluded(design: Design, seen: Sequence[Pairs]) -> int | None:
    """The first look, from 0, at which a loss of the margin is excluded."""
    if design.margin is None:
        return 0 if seen else None
    for number, pairs in enumerate(seen):
        if capital(pairs, design.margin) >= 1 / HALF:
            return number
        at_the_end = pairs.questions >= design.most
        if at_the_end and confidence_in(pairs, design.margin) >= 1 - HALF:
            return number
    return None


def largest_loss(seen: Sequence[Pairs], most: int) -> float:
    """The largest loss, as a share, that the answers do not exclude at 95 % over all looks."""
    bounds = [_bound(pairs) for pairs in seen]
    bounds += [
        largest_loss_of_one_look(pairs, 1 - HALF) for pairs in seen if pairs.questions >= most
    ]
    return min(bounds, default=1.0)


def capital(pairs: Pairs, margin: float) -> Any:
    """What is left of 1 that was bet, question by question, on a loss below ``margin``.

    A bet b gives 1 + b (margin - x) times its stake, where x is 1 for a lost answer, -1 for a won
    one and else 0: nothing is won in the mean if the mean of x is the margin, and less if it is
    more. The order of the answers does not matter.

    Args:
        pairs: Counts, which may be arrays.
        margin: A loss between -1 and 1.
    """
    lost, won = pairs.lost, pairs.won
    same = pairs.both + pairs.neither
    total: Any = 0.0
    for share in _STAKES:
        bet = share / (1 - margin)
        total = total + np.exp(
            xlog1py(lost, -share) + xlog1py(won, bet * (1 + margin)) + xlog1py(same, bet * margin)
        ) / len(_STAKES)
    return total


def _bound(pairs: Pairs) -> float:
    """The smallest margin that is excluded by betting alone; 1: none is."""
    excluded, possible = 1.0, -1.0
    while excluded - possible > _TOLERANCE:
        middle = (excluded + possible) / 2
        if capital(pairs, middle) >= 1 / HALF:
            excluded = middle
        else:
            possible = middle
    return excluded


@lru_cache(maxsize=512)
def _coins(flips: int) -> Any:
    """How probable each number of heads of so many fair coins is."""
    return np.array([math.comb(flips, heads) / 2**flips for heads in range(flips + 1)])
