# SPDX-License-Identifier: Apache-2.0
"""The ranks among which an expert may go, while their slots are given to others."""

from typing import NamedTuple

import numpy as np

from vllm_eplb_plugin.planning.inner import inner

MEAN = 2**40
"""The mean load of a rank, in the unit of loads."""


class Block(NamedTuple):
    """All ranks of a layer, or those of one node where experts stay on their node."""

    placement: np.ndarray
    """i8 ``[slots]``, of the whole layer, as are all arrays."""
    load: np.ndarray
    """i8 ``[logical]``."""
    replicas: np.ndarray
    """i8 ``[logical]``."""
    held: np.ndarray
    """i8 ``[ranks, logical]``: slots of a rank that hold an expert."""
    places: np.ndarray
    """i8 ``[logical]``: ranks that hold an expert."""
    home: np.ndarray
    """i8 ``[logical]``: the rank of an expert that has no other."""
    rank_load: np.ndarray
    """i8 ``[ranks]``."""
    price: np.ndarray
    """f8 ``[ranks, logical]``: what it costs a rank to get an expert; 0 if it held it before."""
    first: int
    """Rank."""
    end: int
    """The rank behind the last one."""
    size: int
    """Slots of a rank."""
    per_node: int
    """Ranks of a node."""
    limit: int
    """The load that a rank should not exceed."""


@inner
def loads_of(load, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``[logical]`` i8: loads in units of `MEAN`."""
    mean, units = load.sum() / ranks, np.zeros(len(load), np.int64)
    if mean > 0.0:
        for expert in range(len(load)):
            units[expert] = np.int64(load[expert] / mean * MEAN)
    return units


@inner
def prices_of(old, ranks, nodes, experts, other_node_cost):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``[ranks, logical]`` f8: what a rank pays for an expert, from the placement in force."""
    price = np.full((ranks, experts), other_node_cost)
    size, per_node = len(old) // ranks, ranks // nodes
    for slot in range(len(old)):
        first = slot // size // per_node * per_node
        price[first : first + per_node, old[slot]] = 1.0
    for slot in range(len(old)):
        price[slot // size, old[slot]] = 0.0
    return price


@inner
def start_block(placement, load, price, first, end, nodes, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    ranks, experts = price.shape
    size = len(placement) // ranks
    replicas, places = np.zeros(experts, np.int64), np.zeros(experts, np.int64)
    held, home = np.zeros((ranks, experts), np.int64), np.zeros(experts, np.int64)
    for slot in range(first * size, end * size):
        rank, expert = slot // size, placement[slot]
        places[expert] += held[rank, expert] == 0
        held[rank, expert] += 1
        replicas[expert] += 1
        home[expert] = rank
    rank_load = np.zeros(ranks, np.int64)
    for slot in range(first * size, end * size):
        rank_load[slot // size] += load[placement[slot]] // replicas[placement[slot]]
    where = (first, end, size, ranks // nodes, limit)
    return Block(placement, load, replicas, held, places, home, rank_load, price, *where)


@inner
def put(block, slot, expert):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let a slot hold another expert."""
    left, rank = block.placement[slot], slot // block.size
    _weigh(block, left, -1)
    _weigh(block, expert, -1)
    block.placement[slot] = expert
    block.replicas[left] -= 1
    block.replicas[expert] += 1
    block.held[rank, left] -= 1
    block.held[rank, expert] += 1
    block.places[left] -= block.held[rank, left] == 0
    block.places[expert] += block.held[rank, expert] == 1
    _weigh(block, left, 1)
    _weigh(block, expert, 1)


@inner
def _weigh(block, expert, sign):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add an expert's load to its ranks, or take it away; note where it is."""
    if block.replicas[expert] > 0:
        share = block.load[expert] // block.replicas[expert]
        for rank in range(block.first, block.end):
            if block.held[rank, expert] > 0:
                block.rank_load[rank] += sign * block.held[rank, expert] * share
                block.home[expert] = rank


@inner
def above(load, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return load - limit if load > limit else 0


@inner
def load_above(block, rank_load, but):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What ranks other than one have above the limit, together."""
    total = 0
    for rank in range(block.first, block.end):
        if rank != but:
            total += above(rank_load[rank], block.limit)
    return total


@inner
def spares(block, expert, rank):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether an expert may lose a slot of a rank, and be on as many ranks or on two."""
    held = block.held[rank, expert]
    return held > 1 or (held == 1 and block.places[expert] > 2)
