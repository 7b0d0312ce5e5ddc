# SPDX-License-Identifier: Apache-2.0
"""Exchange experts between ranks so that they are where they were, at nearly the same load."""

import numpy as np

from vllm_eplb_plugin.planning.inner import inner

MEAN = 2**40
"""The mean load of a rank, in the unit of shares."""


@inner
def shares_of(load, placement, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``[logical]``: load of each replica, i8."""
    replicas = np.zeros(len(load), np.int64)
    for expert in placement:
        replicas[expert] += 1
    mean = load.sum() / ranks
    share = np.zeros(len(load), np.int64)
    if mean > 0.0:
        for expert in range(len(load)):
            share[expert] = np.int64(load[expert] / replicas[expert] / mean * MEAN)
    return share


@inner
def exchange(placement, old, share, limit, ranks, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make exchanges after which fewer experts are received, in place; whether there was one.

    Args:
        placement: i8 ``[slots]``.
        old: i8 ``[slots]``, the placement in force.
        share: i8 ``[logical]``, load of each replica.
        limit: The load that no rank may come to exceed.
        ranks: Ranks that hold the slots.
        reach: Ranks of a node where experts stay on their node, else all.
    """
    slots, experts = len(placement), len(share)
    size = slots // ranks
    had = np.zeros((ranks, experts), np.bool_)
    has = np.zeros((ranks, experts), np.int64)
    rank_load = np.zeros(ranks, np.int64)
    for slot in range(slots):
        had[slot // size, old[slot]] = True
        has[slot // size, placement[slot]] += 1
        rank_load[slot // size] += share[placement[slot]]
    changed, gain = False, 2
    while gain > 0:
        found = False
        for slot in range(slots):
            rank, expert = slot // size, placement[slot]
            if had[rank, expert] or has[rank, expert] > 1:
                continue
            other_slot = _partner(
                placement, share, had, has, rank_load, limit, slot, size, reach, gain
            )
            if other_slot < 0:
                continue
            other, back = other_slot // size, placement[other_slot]
            placement[slot], placement[other_slot] = back, expert
            has[rank, expert] -= 1
            has[rank, back] += 1
            has[other, back] -= 1
            has[other, expert] += 1
            rank_load[rank] += share[back] - share[expert]
            rank_load[other] += share[expert] - share[back]
            found = True
        changed |= found
        gain = 2 if found else gain - 1
    return changed


@inner
def _partner(placement, share, had, has, rank_load, limit, slot, size, reach, least):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The slot with which to exchange, on a rank that had the expert; -1: there is none."""
    rank, expert = slot // size, placement[slot]
    best, best_shift = -1, np.iinfo(np.int64).max
    first = rank // reach * reach
    for other in range(first, first + reach):
        if not had[other, expert] or has[other, expert] > 0:
            continue
        for other_slot in range(other * size, other * size + size):
            back = placement[other_slot]
            if has[rank, back] > 0:
                continue
            gain = 1 - int(not had[rank, back])
            gain += int(has[other, back] == 1 and not had[other, back])
            shift = share[back] - share[expert]
            if gain < least or abs(shift) >= best_shift:
                continue
            if shift > 0 and rank_load[rank] + shift > limit:
                continue
            if shift < 0 and rank_load[other] - shift > limit:
                continue
            best, best_shift = other_slot, abs(shift)
    return best
