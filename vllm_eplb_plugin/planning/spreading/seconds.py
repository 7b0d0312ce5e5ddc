# SPDX-License-Identifier: Apache-2.0
"""Give slots that can be spared to experts that are on one rank only."""

from typing import NamedTuple

import numpy as np

from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.spreading.block import above, load_above, put, spares

FREE, FITTING, ANY = 0, 1, 2
"""Moves that are allowed: those after which nothing more is received and no load is further above
the limit; all of the latter; all."""

_FAR = np.iinfo(np.int64).max


class Second(NamedTuple):
    """A slot for an expert's second place; of two, the one that is less is better."""

    excess: int
    """Load that comes above the limit."""
    alone: int
    """0: the expert that makes room comes to a second place, too."""
    whole: int
    """0: the slot's expert has another one on this rank, which helps nobody to survive."""
    cost: float
    """What is received more."""
    near: int
    """1: it is on the node of the first place."""
    high: int
    """The load of the fuller of the two ranks."""
    slot: int
    """-1: there is none."""
    gets: int
    """What the slot gets: the expert, or another one whose slot it gets."""
    other_slot: int
    """The slot of that one; -1: it is none."""
    expert: int


@inner
def give_seconds(block, allowed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make moves until no expert can get a second place by one that is allowed.

    The experts that have most to spare give first: those with two slots on a rank, then those
    whose replicas have least load when they have one less.
    """
    tried = np.zeros(len(block.load), np.bool_)
    turning, found = False, False
    while np.any(block.places == 1):
        giver = _next_giver(block, tried)
        if giver < 0:
            # Others have to make room only where no slot can simply be given.
            if not found and (turning or allowed == FREE):
                return
            turning, found = not found, False
            tried[:] = False
            continue
        best = _best_second(block, giver, allowed, turning)
        if best.slot < 0:
            tried[giver] = True
            continue
        put(block, best.slot, best.gets)
        if best.other_slot >= 0:
            put(block, best.other_slot, best.expert)
        found = True


@inner
def _next_giver(block, tried):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The expert to spare a slot that was not tried; -1: there is none."""
    giver, doubled, coldest = -1, False, _FAR
    for expert in range(len(block.load)):
        replicas, places = block.replicas[expert], block.places[expert]
        if tried[expert] or replicas < 2 or (replicas == places and places < 3):
            continue
        double, left = replicas > places, block.load[expert] // (replicas - 1)
        if giver < 0 or (double and not doubled) or (double == doubled and left < coldest):
            giver, doubled, coldest = expert, double, left
    return giver


@inner
def _best_second(block, giver, allowed, turning):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    best = Second(_FAR, 0, 0, 0.0, 0, 0, -1, -1, -1, -1)
    over = load_above(block, block.rank_load, -1)
    share = block.load[giver] // block.replicas[giver]
    left = block.load[giver] // (block.replicas[giver] - 1)
    for slot in range(block.first * block.size, block.end * block.size):
        rank = slot // block.size
        if block.placement[slot] != giver or not spares(block, giver, rank):
            continue
        after = block.rank_load + block.held[:, giver] * (left - share)
        after[rank] -= left
        if turning:
            best = _turn(block, slot, after, over, allowed, best)
        else:
            best = _give(block, slot, after, over, allowed, best)
    return best


@inner
def _give(block, slot, after, over, allowed, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The best expert that a slot can be given to.

    Args:
        after: i8 ``[ranks]``: loads when the slot is empty.
        over: What is above the limit now.
    """
    rank, giver = slot // block.size, block.placement[slot]
    whole = int(block.held[rank, giver] == 1)
    saved, rest = block.price[rank, giver] * whole, load_above(block, after, rank)
    for expert in range(len(block.load)):
        home = block.home[expert]
        if block.places[expert] != 1 or home == rank:
            continue
        replicas = block.replicas[expert]
        share = block.load[expert] // (replicas + 1)
        there = after[home] - replicas * (block.load[expert] // replicas - share)
        here = after[rank] + share
        excess = rest - above(after[home], block.limit) - over
        excess += above(there, block.limit) + above(here, block.limit)
        cost = block.price[rank, expert] - saved
        near = int(home // block.per_node == rank // block.per_node)
        high = max(here, there)
        move = Second(max(excess, 0), 1, whole, cost, near, high, slot, expert, -1, expert)
        if _allows(allowed, move) and _is_less(move, best):
            best = move
    return best


@inner
def _turn(block, slot, after, over, allowed, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The best way to give a slot to an expert of another rank, whose slot goes to one of this."""
    rank, giver, size = slot // block.size, block.placement[slot], block.size
    whole = int(block.held[rank, giver] == 1)
    saved, rest = block.price[rank, giver] * whole, load_above(block, after, rank)
    for own in range(rank * size, rank * size + size):
        expert = block.placement[own]
        if block.places[expert] != 1:
            continue
        # Where the expert has the slot itself, it has as many as before.
        grows = int(expert != giver)
        replicas = block.replicas[expert] - 1 + grows
        share = block.load[expert] // (replicas + 1)
        here = after[rank] - replicas * (block.load[expert] // replicas - share)
        for other_slot in range(block.first * size, block.end * size):
            other, gets = other_slot // size, block.placement[other_slot]
            if block.held[rank, gets] > 0:
                continue
            moved = block.load[gets] // block.replicas[gets]
            there, there_before = after[other] + share - moved, after[other]
            excess = rest - above(there_before, block.limit) - over
            excess += above(there, block.limit) + above(here + moved, block.limit)
            cost = block.price[rank, gets] + block.price[other, expert] - saved
            if block.held[other, gets] == 1:
                cost -= block.price[other, gets]
            near = int(other // block.per_node == rank // block.per_node)
            high = max(here + moved, there)
            excess = max(excess, 0)
            alone = int(block.places[gets] > 1 or block.held[other, gets] == 1)
            move = Second(excess, alone, whole, cost, near, high, slot, gets, other_slot, expert)
            if _allows(allowed, move) and _is_less(move, best):
                best = move
    return best


@inner
def _allows(allowed, move):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return allowed == ANY or (move.excess == 0 and (allowed == FITTING or move.cost <= 0.0))


@inner
def _is_less(move, best):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if best.slot < 0 or move.excess != best.excess:
        return best.slot < 0 or move.excess < best.excess
    if move.alone != best.alone:
        return move.alone < best.alone
    if move.whole != best.whole:
        return move.whole < best.whole
    if move.cost != best.cost:
        return move.cost < best.cost
    if move.near != best.near:
        return move.near < best.near
    return move.high < best.high
