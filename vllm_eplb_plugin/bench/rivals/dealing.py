# SPDX-License-Identifier: Apache-2.0
"""How swift's idea hands out redundant slots."""

import numpy as np

from vllm_eplb_plugin.planning.inner import inner


@inner
def homes_of(row, experts, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The slot that each expert keeps: its first, counted by place in a rank, then by rank."""
    size, home = row.shape[0] // ranks, np.full(experts, -1, np.int64)
    for place in range(size):
        for rank in range(ranks):
            slot = rank * size + place
            if home[row[slot]] < 0:
                home[row[slot]] = slot
    return home


@inner
def _hottest_first(load, slots, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The experts that so many redundant slots go to, one by one to who then has the greatest
    share, and that share, in the order of shares."""
    replicas, share = np.ones(load.shape[0]), load.copy()
    gets = np.empty(slots, np.int64)
    for index in range(slots):
        best = -1
        for expert in range(load.shape[0]):
            if replicas[expert] < ranks and (best < 0 or share[expert] > share[best]):
                best = expert
        gets[index] = best
        replicas[best] += 1
        share[best] = load[best] / replicas[best]
    order = np.argsort(-share[gets], kind="mergesort")
    return gets[order], share


@inner
def deal(row, load, home, moved, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Deal all slots but the homes anew: the greatest share to the emptiest rank that has a free
    slot, does not hold the expert and has had none from its home's rank; what is left over, to the
    hottest experts that a rank lacks.

    Returns:
        How many slots of a rank hold an expert, ``[ranks, logical]``, and how many experts each
        rank has had from each other, ``[ranks, ranks]``.
    """
    size, experts = row.shape[0] // ranks, load.shape[0]
    held, sent = np.zeros((ranks, experts), np.int64), np.zeros((ranks, ranks), np.int64)
    free, loads = np.ones(row.shape[0], np.bool_), np.zeros(ranks)
    gets, share = _hottest_first(load, row.shape[0] - experts, ranks)
    for expert in range(experts):
        free[home[expert]] = False
        held[home[expert] // size, expert] = 1
        loads[home[expert] // size] += share[expert]
    for expert in gets:
        sender, best = home[expert] // size, -1
        for slot in range(row.shape[0]):
            rank = slot // size
            if not free[slot] or held[rank, expert] > 0 or sent[sender, rank] > 0:
                continue
            if best < 0 or loads[rank] < loads[best // size]:
                best = slot
        if best >= 0:
            _give(row, free, moved, held, sent, best, expert, sender, size)
            loads[best // size] += share[expert]
    _fill(row, load, home, free, moved, held, sent, size)
    return held, sent


@inner
def _give(row, free, moved, held, sent, slot, expert, sender, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    row[slot] = expert
    free[slot] = False
    moved[slot] = True
    held[slot // size, expert] += 1
    sent[sender, slot // size] += 1


@inner
def _fill(row, load, home, free, moved, held, sent, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for slot in range(row.shape[0]):
        if not free[slot]:
            continue
        best, most = row[slot], -1.0
        for expert in range(load.shape[0]):
            share = load[expert] / max(1, np.sum(held[:, expert]))
            if held[slot // size, expert] == 0 and share > most:
                best, most = expert, share
        _give(row, free, moved, held, sent, slot, best, home[best] // size, size)
