# SPDX-License-Identifier: Apache-2.0
"""Refine the layers of a placement, and tell by which moves."""

import numpy as np

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.refining import layer as _layer
from vllm_eplb_plugin.planning.refining import moves as _moves
from vllm_eplb_plugin.planning.refining.layer import Move, apply_move, start_layer
from vllm_eplb_plugin.planning.refining.moves import best_replica, best_swap, find_relief


@inner
def _hand_out(layer, kappa):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Give replicas of cold experts to hot ones, whose share is ``kappa`` times theirs."""
    size, slots = layer.size, layer.placement.shape[0]
    for handed in range(slots):
        hot, cold, cold_share = 0, -1, np.inf
        for expert in range(layer.load.shape[0]):
            if layer.share[expert] > layer.share[hot]:
                hot = expert
            if layer.replicas[expert] > 1:
                left = layer.load[expert] / (layer.replicas[expert] - 1)
                if left < cold_share:
                    cold, cold_share = expert, left
        if cold < 0 or layer.share[hot] <= kappa * cold_share:
            return handed
        best = -1
        for index in range(layer.replicas[cold]):
            slot = layer.slots_of[cold, index]
            if layer.held[slot // size, hot] > 0:
                continue
            if best < 0 or layer.rank_load[slot // size] < layer.rank_load[best // size]:
                best = slot
        if best < 0:
            return handed
        apply_move(layer, Move(0.0, 0.0, best, hot, -1, -1))
    return slots


@inner
def _refine(layer, target, moves, worths, made):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Make moves until no rank is above the target, or none helps; how many are made by then."""
    while made < len(moves):
        full = np.argmax(layer.rank_load)
        if layer.rank_load[full] <= target:
            break
        find_relief(layer, target)
        best = Move(1e-9 * target, 0.0, -1, -1, -1, -1)
        best = best_replica(layer, full, target, best)
        best = best_swap(layer, full, target, best)
        if best.slot < 0:
            break
        apply_move(layer, best)
        moves[made] = (best.slot, best.expert, best.other_slot, best.other_expert)
        worths[made] = best.worth / target
        made += 1
    return made


@compiled(
    "void(f8[:,::1], i8[:,::1], i8[:,::1], i8, i8, f8[::1], f8, f8, i8[:,:,::1], f8[:,::1], "
    "i8[::1])",
    uses=(_layer, _moves),
    nogil=True,
)
def refine(load, placement, old, ranks, nodes, targets, kappa, node_cost, moves, worths, made):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Refine each row of a placement in place, and tell by which moves.

    A row is a layer, or the experts of one node in a layer.

    Args:
        load: f8 ``[rows, logical]``.
        placement: i8 ``[rows, slots]``, every slot filled.
        old: i8 ``[rows, slots]``: what slots held, which costs nothing to keep; -1: nothing known.
        ranks: Ranks that hold the slots.
        nodes: Nodes that hold the ranks.
        targets: f8 ``[rows]``: the load of a rank that is good enough.
        kappa: Before it refines, an expert whose share is so many times that of an expert with
            several replicas gets one of these; 0: never.
        node_cost: What an expert from another node counts for.
        moves: i8 ``[rows, most, 4]``: a slot and the expert that it gets, and the same of the
            second slot of a swap, -1 where there is none.
        worths: f8 ``[rows, most]``: what each gains for an expert received, as part of the target.
        made: i8 ``[rows]``: how many moves. Those of `kappa` are not among them.
    """
    for row in range(load.shape[0]):
        target, known = targets[row], old[row].copy()
        while True:
            before = placement[row].copy()
            layer = start_layer(load[row], placement[row], known, ranks, nodes, node_cost)
            top = np.max(layer.rank_load)
            if top <= target:
                break
            if kappa > 0.0:
                _hand_out(layer, kappa)
            made[row] = _refine(layer, target, moves[row], worths[row], 0)
            if np.max(layer.rank_load) >= top and kappa > 0.0:
                placement[row] = before
                layer = start_layer(load[row], before.copy(), known, ranks, nodes, node_cost)
                _refine(layer, target, moves[row], worths[row], 0)
                if np.max(layer.rank_load) < top:
                    placement[row] = layer.placement
            # What is stuck is planned again as if it were in force, until that changes nothing.
            if kappa == 0.0 or (np.all(placement[row] == before) and np.all(known == before)):
                break
            known = placement[row].copy()
