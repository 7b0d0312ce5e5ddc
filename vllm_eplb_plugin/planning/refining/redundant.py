# SPDX-License-Identifier: Apache-2.0
"""Improve layers by what their redundant slots hold, while each expert keeps its home.

Beside the moves of `planning.refining.moves`, only those of redundant slots: give one to an expert
of the fullest rank, give one on the fullest rank to a colder expert, or swap two.
"""

import numpy as np

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.refining import layer as _layer
from vllm_eplb_plugin.planning.refining import moves as _moves
from vllm_eplb_plugin.planning.refining.layer import Move, above, apply_move, start_layer
from vllm_eplb_plugin.planning.refining.moves import (
    COLDER,
    FREE,
    find_relief,
    net_cost,
    try_replica,
)


@inner
def _may_take(layer, home, reach, slot, expert):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A home comes before its expert's other replicas, so that it is found again."""
    if layer.held[slot // layer.size, expert] > 0:
        return False
    return home[expert] < slot and home[expert] // reach == slot // reach


@inner
def _best_replica(layer, redundant, home, reach, full, target, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    size, top = layer.size, layer.rank_load[full]
    for slot in redundant:
        loses, on_full = layer.placement[slot], slot // size == full
        least = layer.load[loses] / (layer.replicas[loses] - 1) / COLDER
        for index in range(layer.load.shape[0] if on_full else size):
            gets = index if on_full else layer.placement[full * size + index]
            if layer.share[gets] >= least and _may_take(layer, home, reach, slot, gets):
                best = try_replica(layer, slot, gets, target, top, best)
    return best


@inner
def _best_swap(layer, redundant, home, reach, full, target, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    size, top = layer.size, layer.rank_load[full]
    for slot in redundant:
        if slot // size != full:
            continue
        hot = layer.placement[slot]
        for other_slot in redundant:
            other, colder = other_slot // size, layer.placement[other_slot]
            shift = layer.share[hot] - layer.share[colder]
            if other == full or shift <= 0.0:
                continue
            gain = above(top, target) - above(top - shift, target)
            gain += above(layer.rank_load[other], target)
            gain -= above(layer.rank_load[other] + shift, target)
            cost = net_cost(layer, other, hot, colder) + net_cost(layer, full, colder, hot)
            worth = gain / max(cost, FREE)
            if worth <= best.worth:
                continue
            there = _may_take(layer, home, reach, other_slot, hot)
            if there and _may_take(layer, home, reach, slot, colder):
                best = Move(worth, gain, slot, colder, other_slot, hot)
    return best


@compiled(
    "void(f8[:,::1], i8[:,::1], i8[:,::1], i8[:,::1], i8[::1], i8, i8, f8[::1], f8, i8[:,:,::1], "
    "f8[:,::1], i8[::1])",
    uses=(_layer, _moves),
    nogil=True,
)
def refill(load, placement, old, homes, reach, ranks, nodes, targets, cost, moves, worths, made):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Refine as `planning.refining.refine.refine` does, without touching a home.

    Args:
        load, placement, old, ranks, nodes, targets, cost, moves, worths, made: As there.
        homes: i8 ``[layers, logical]``: the slot of each expert that stays as it is.
        reach: i8 ``[layers]``: slots of a node where a replica has to be on its home's, else all.
    """
    for row in range(load.shape[0]):
        target, home = targets[row], homes[row]
        layer = start_layer(load[row], placement[row], old[row], ranks, nodes, cost)
        slots = np.arange(placement.shape[1])
        redundant = slots[home[placement[row]] != slots]
        while made[row] < moves.shape[1]:
            full = np.argmax(layer.rank_load)
            if layer.rank_load[full] <= target:
                break
            find_relief(layer, target)
            best = Move(1e-9 * target, 0.0, -1, -1, -1, -1)
            best = _best_replica(layer, redundant, home, reach[row], full, target, best)
            best = _best_swap(layer, redundant, home, reach[row], full, target, best)
            if best.slot < 0:
                break
            apply_move(layer, best)
            moves[row, made[row]] = (best.slot, best.expert, best.other_slot, best.other_expert)
            worths[row, made[row]] = best.worth / target
            made[row] += 1
