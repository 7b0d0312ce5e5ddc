# SPDX-License-Identifier: Apache-2.0
"""Swap experts between ranks until no load is above the limit, each on as many ranks as before."""

import numpy as np

from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.spreading.block import above, put

LEAST_COST = 0.5
"""What a swap counts, in experts, for which none is received."""


@inner
def relieve(block):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make the swap that takes most load above the limit off the fullest rank for each expert that
    is received, as long as there is one."""
    while True:
        full = block.first + np.argmax(block.rank_load[block.first : block.end])
        if block.rank_load[full] <= block.limit:
            return
        slot, other_slot = _best_swap(block, full)
        if slot < 0:
            return
        goes, comes = block.placement[slot], block.placement[other_slot]
        put(block, slot, comes)
        put(block, other_slot, goes)


@inner
def _best_swap(block, full):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The slots to swap, the first on the fullest rank; -1: no swap helps."""
    best, slots, size = 0.0, (-1, -1), block.size
    top = block.rank_load[full]
    for slot in range(full * size, full * size + size):
        hot = block.placement[slot]
        share = block.load[hot] // block.replicas[hot]
        for other_slot in range(block.first * size, block.end * size):
            other, cold = other_slot // size, block.placement[other_slot]
            shift = share - block.load[cold] // block.replicas[cold]
            most = min(shift, top - block.limit, block.limit - block.rank_load[other])
            if (
                most <= best * LEAST_COST
                or block.held[other, hot] > 0
                or block.held[full, cold] > 0
            ):
                continue
            gain = top - block.limit - above(top - shift, block.limit)
            gain -= above(block.rank_load[other] + shift, block.limit)
            cost = _cost(block, full, cold, hot) + _cost(block, other, hot, cold)
            if gain / max(cost, LEAST_COST) > best:
                best, slots = gain / max(cost, LEAST_COST), (slot, other_slot)
    return slots


@inner
def _cost(block, rank, gets, loses):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    cost = block.price[rank, gets]
    return cost - block.price[rank, loses] if block.held[rank, loses] == 1 else cost
