# SPDX-License-Identifier: Apache-2.0
"""The best move of a layer: what it gains, and what it costs to make."""

import numpy as np

from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.refining.layer import Move, above

FREE = 0.5
"""What a move counts, in experts, that needs none to be received."""

COLDER = 1.25
"""An expert may give up a replica if its share then is at most so many times that of the expert
that gets it: otherwise a hot expert loses its replicas one by one, and the next window suffers."""


@inner
def net_cost(layer, rank, gets, loses):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What a rank receives for an expert, less what it need not receive for the one it loses."""
    cost = layer.price[rank, gets] if layer.held[rank, gets] == 0 else 0.0
    return cost - layer.price[rank, loses] if layer.held[rank, loses] == 1 else cost


@inner
def find_relief(layer, target):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    layer.relief[:] = 0.0
    for slot in range(layer.placement.shape[0]):
        over = above(layer.rank_load[slot // layer.size], target)
        if over > 0.0:
            expert = layer.placement[slot]
            fall = layer.share[expert] / (layer.replicas[expert] + 1)
            layer.relief[expert] += min(fall, over)


@inner
def best_swap(layer, full, target, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Swap an expert of the fullest rank with a colder one of another rank."""
    size, top = layer.size, layer.rank_load[full]
    ranks = layer.rank_load.shape[0]
    # The emptiest first: what it offers is seldom beaten.
    first = np.argmin(layer.rank_load)
    for turn in range(ranks):
        other = (first + turn) % ranks
        room = target - layer.rank_load[other]
        if room <= 0.0:
            continue
        at_most = min(top - target, room)
        back = np.inf
        for slot in range(other * size, other * size + size):
            colder = layer.placement[slot]
            back = min(back, layer.price[full, colder] - layer.price[other, colder])
        for slot in range(full * size, full * size + size):
            expert = layer.placement[slot]
            if layer.held[other, expert] > 0:
                continue  # a second replica on one rank halves nothing
            least = layer.price[other, expert] - layer.price[full, expert] + back
            if min(at_most, layer.share[expert]) <= best.worth * max(least, FREE):
                continue
            for other_slot in range(other * size, other * size + size):
                colder = layer.placement[other_slot]
                shift = layer.share[expert] - layer.share[colder]
                if shift <= 0.0 or layer.held[full, colder] > 0:
                    continue
                gain = top - target - above(top - shift, target) - above(shift, room)
                if gain <= best.worth * FREE:
                    continue
                cost = net_cost(layer, other, expert, colder) + net_cost(
                    layer, full, colder, expert
                )
                worth = gain / max(cost, FREE)
                if worth > best.worth:
                    best = Move(worth, gain, slot, colder, other_slot, expert)
    return best


@inner
def try_replica(layer, slot, gets, target, top, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Give a slot, whose expert has another replica, to a further replica of ``gets``."""
    size, loses = layer.size, layer.placement[slot]
    rank = slot // size
    cost = max(net_cost(layer, rank, gets, loses), FREE)
    share = layer.load[gets] / (layer.replicas[gets] + 1)
    spared = above(layer.rank_load[rank], target)
    spared = min(spared, max(layer.share[loses] - share, 0.0))
    if layer.relief[gets] + spared <= best.worth * cost:
        return best
    rise = layer.load[loses] / (layer.replicas[loses] - 1) - layer.share[loses]
    for index in range(layer.replicas[gets]):
        layer.change[layer.slots_of[gets, index] // size] += share - layer.share[gets]
    for index in range(layer.replicas[loses]):
        layer.change[layer.slots_of[loses, index] // size] += rise
    layer.change[rank] += share - layer.share[loses] - rise
    gain, highest = 0.0, 0.0
    for expert in (gets, loses):
        for index in range(layer.replicas[expert]):
            touched = layer.slots_of[expert, index] // size
            if layer.change[touched] != 0.0:
                before = layer.rank_load[touched]
                after = before + layer.change[touched]
                gain += above(before, target) - above(after, target)
                highest = max(highest, after)
                layer.change[touched] = 0.0
    if highest <= top and gain > best.worth * cost:
        return Move(gain / cost, gain, slot, gets, -1, -1)
    return best


@inner
def _harm(layer, slot, rise, target):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Load that comes above the target elsewhere when a slot no longer holds its replica."""
    expert, harm = layer.placement[slot], 0.0
    for index in range(layer.replicas[expert]):
        if layer.slots_of[expert, index] != slot:
            load = layer.rank_load[layer.slots_of[expert, index] // layer.size]
            harm += above(load + rise, target) - above(load, target)
    return harm


@inner
def best_replica(layer, full, target, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make further replicas of the fullest rank's experts, or fewer on it of those that have."""
    size, top = layer.size, layer.rank_load[full]
    experts, most = layer.slots_of.shape[0], layer.slots_of.shape[1] - 1
    hottest, relief = 0.0, 0.0
    for own in range(full * size, full * size + size):
        hottest = max(hottest, layer.share[layer.placement[own]])
        relief = max(relief, layer.relief[layer.placement[own]])
    for slot in range(layer.placement.shape[0]):
        loses, rank = layer.placement[slot], slot // size
        if layer.replicas[loses] < 2:
            continue
        left = layer.load[loses] / (layer.replicas[loses] - 1)
        least = left / COLDER
        if rank != full and hottest < least:
            continue
        spared = min(above(layer.rank_load[rank], target), layer.share[loses])
        spared -= _harm(layer, slot, left - layer.share[loses], target)
        if rank != full and relief + spared <= best.worth * FREE:
            continue
        for index in range(experts if rank == full else size):
            gets = index if rank == full else layer.placement[full * size + index]
            if layer.share[gets] < least or layer.held[rank, gets] > 0:
                continue
            cost = max(layer.price[rank, gets] - layer.price[rank, loses], FREE)
            if layer.relief[gets] + spared > best.worth * cost and layer.replicas[gets] < most:
                best = try_replica(layer, slot, gets, target, top, best)
    return best
