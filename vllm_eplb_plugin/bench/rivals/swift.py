# SPDX-License-Identifier: Apache-2.0
"""Swift's idea (vllm-ascend): deal redundant slots anew, then swap, with few transfers.

Each expert has a home, its first slot; all other slots of a layer whose fullest rank is 1 % above
the mean are dealt anew, and experts are swapped with those of the fullest rank as long as that
takes 1 % of the mean load away. A pair of ranks exchanges one expert at most, and what has moved
once stays. There is neither a budget nor a look at what redundant slots held before.
"""

import numpy as np

from vllm_eplb_plugin.bench.rivals import dealing as _dealing
from vllm_eplb_plugin.bench.rivals.dealing import deal, homes_of
from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.problem import Integers, Problem

_SWAPS = 100
"""Of a layer, at most."""


def swift(problem: Problem) -> Integers:
    """Plan ``[layers, slots]``."""
    placement: Integers = problem.old.copy()
    _plan(problem.load, placement, problem.num_ranks, 0.01)
    return placement


@inner
def _rank_loads(row, share, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    loads, size = np.zeros(ranks), row.shape[0] // ranks
    for slot in range(row.shape[0]):
        loads[slot // size] += share[row[slot]]
    return loads


@inner
def _shares(row, load):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    replicas = np.zeros(load.shape[0])
    for expert in row:
        replicas[expert] += 1
    return load / replicas


@inner
def _best_swap(row, share, moved, held, loads, full, other):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The two slots of two ranks whose exchange leaves the fuller one least, and with how much."""
    size = row.shape[0] // loads.shape[0]
    best, one, two = loads[full], -1, -1
    for slot in range(full * size, full * size + size):
        if moved[slot] or held[other, row[slot]] > 0:
            continue
        for second in range(other * size, other * size + size):
            if moved[second] or held[full, row[second]] > 0:
                continue
            shift = share[row[slot]] - share[row[second]]
            after = max(loads[full] - shift, loads[other] + shift)
            if after < best:
                best, one, two = after, slot, second
    return best, one, two


@inner
def _swap(row, share, moved, held, sent, ranks, least):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Swap with the fullest rank's experts, the emptiest ranks first, while it is worth it."""
    for _ in range(_SWAPS):
        loads = _rank_loads(row, share, ranks)
        full, done = np.argmax(loads), True
        for other in np.argsort(loads, kind="mergesort")[:-1]:
            if other == full or sent[full, other] > 0 or sent[other, full] > 0:
                continue
            after, one, two = _best_swap(row, share, moved, held, loads, full, other)
            if one < 0 or loads[full] - after < least:
                continue
            for rank, gets, loses in ((full, row[two], row[one]), (other, row[one], row[two])):
                held[rank, gets] += 1
                held[rank, loses] -= 1
            row[one], row[two] = row[two], row[one]
            moved[one] = moved[two] = True
            sent[full, other] += 1
            sent[other, full] += 1
            done = False
            break
        if done:
            return


@compiled("void(f8[:,::1], i8[:,::1], i8, f8)", uses=(_dealing,), nogil=True)
def _plan(load, placement, ranks, threshold):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for layer in range(load.shape[0]):
        old = placement[layer].copy()
        before = np.max(_rank_loads(old, _shares(old, load[layer]), ranks))
        mean = np.sum(load[layer]) / ranks
        if before <= mean * (1 + threshold):
            continue
        row, home, moved = old.copy(), homes_of(old, load.shape[1], ranks), np.zeros(len(old)) > 0
        held, sent = deal(row, load[layer], home, moved, ranks)
        share = _shares(row, load[layer])
        _swap(row, share, moved, held, sent, ranks, mean * threshold)
        if np.max(_rank_loads(row, share, ranks)) < before:
            placement[layer] = row
