# SPDX-License-Identifier: Apache-2.0
"""Placements of a layer between which a share of every rank's slots gets another rank's expert."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Placement = NDArray[np.int64]
"""``[ranks * slots]``, the expert in each slot; every expert is there once."""


@dataclass(frozen=True)
class Share:
    """How much of a layer moves."""

    name: str
    part: float
    """Of every rank's slots."""
    whole: bool = False
    """The rows lie together, in the weights that they come from as in those that they go to."""


SHARES = (
    Share("all, whole", 1.0, whole=True),
    Share("all", 1.0),
    Share("half", 0.5),
    Share("10 %", 0.1),
    Share("1 %", 0.01),
)


def moved_slots(share: Share, slots: int) -> int:
    """How many slots of each rank change: at least one."""
    return max(1, round(share.part * slots))


def first_placement(ranks: int, slots: int) -> Placement:
    """One expert after another."""
    return np.arange(ranks * slots)


def draw_next(
    old: Placement, ranks: int, share: Share, generator: np.random.Generator
) -> Placement:
    """Draw a placement in which every rank receives as many experts as it gives.

    A whole block comes from the next rank. Else what a rank gives goes to all others in turns, and
    slots are drawn.
    """
    rows = old.reshape(ranks, -1)
    if share.whole:
        return np.roll(old, -rows.shape[1])
    count = moved_slots(share, rows.shape[1])
    slots = [generator.permutation(rows.shape[1])[:count] for _ in range(ranks)]
    new = rows.copy()
    for number in range(count):
        step = 1 + number % (ranks - 1)
        for rank in range(ranks):
            to = (rank + step) % ranks
            new[to, slots[to][number]] = rows[rank, slots[rank][number]]
    drawn: Placement = new.reshape(-1)
    return drawn


def received_slots(old: Placement, new: Placement, rank: int, ranks: int) -> int:
    """How many experts a rank gets that it does not hold."""
    mine, wanted = (one.reshape(ranks, -1)[rank] for one in (old, new))
    return int((~np.isin(wanted, mine)).sum())
