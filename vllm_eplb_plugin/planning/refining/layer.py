# SPDX-License-Identifier: Apache-2.0
"""A layer while it is refined: what is known of it, and how a move changes it."""

from typing import NamedTuple

import numpy as np

from vllm_eplb_plugin.planning.inner import inner


class Layer(NamedTuple):
    load: np.ndarray
    """f8 ``[logical]``."""
    placement: np.ndarray
    """i8 ``[slots]``."""
    replicas: np.ndarray
    """i8 ``[logical]``."""
    slots_of: np.ndarray
    """i8 ``[logical, most replicas + 1]``: the slots of an expert, in no order. Between the two
    halves of a swap an expert has one slot more."""
    share: np.ndarray
    """f8 ``[logical]``: load of each replica."""
    rank_load: np.ndarray
    """f8 ``[ranks]``."""
    held: np.ndarray
    """i2 ``[ranks, logical]``: slots of a rank that hold an expert."""
    price: np.ndarray
    """f4 ``[ranks, logical]``: what it costs a rank to get an expert; 0 if it held it before."""
    relief: np.ndarray
    """f8 ``[logical]``: load above the target that another replica of an expert would take away."""
    change: np.ndarray
    """f8 ``[ranks]``, zeros between uses: what a move adds to each rank's load."""
    size: int
    """Slots of a rank."""


class Move(NamedTuple):
    worth: float
    """Gain for each expert received."""
    gain: float
    """Load above the target that it takes away, on all ranks."""
    slot: int
    expert: int
    """What the slot gets."""
    other_slot: int
    """The second slot of a swap; -1: it is none."""
    other_expert: int


@inner
def start_layer(load, placement, old, ranks, nodes, other_node_cost):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    experts, slots = load.shape[0], placement.shape[0]
    size, per_node = slots // ranks, ranks // nodes
    price = np.full((ranks, experts), other_node_cost, np.float32)
    for slot in range(slots):
        if old[slot] >= 0:
            first = slot // size // per_node * per_node
            for rank in range(first, first + per_node):
                price[rank, old[slot]] = 1.0
    replicas = np.zeros(experts, np.int64)
    slots_of = np.full((experts, slots - experts + 2), -1, np.int64)
    held = np.zeros((ranks, experts), np.int16)
    for slot in range(slots):
        if old[slot] >= 0:
            price[slot // size, old[slot]] = 0.0
        expert = placement[slot]
        held[slot // size, expert] += 1
        slots_of[expert, replicas[expert]] = slot
        replicas[expert] += 1
    share = load / replicas
    rank_load = np.zeros(ranks)
    for slot in range(slots):
        rank_load[slot // size] += share[placement[slot]]
    relief, change = np.zeros(experts), np.zeros(ranks)
    return Layer(
        load, placement, replicas, slots_of, share, rank_load, held, price, relief, change, size
    )


@inner
def _put(layer, slot, expert):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Let a slot hold another expert."""
    loses, rank = layer.placement[slot], slot // layer.size
    for index in range(layer.replicas[loses]):
        if layer.slots_of[loses, index] == slot:
            layer.slots_of[loses, index] = layer.slots_of[loses, layer.replicas[loses] - 1]
    layer.replicas[loses] -= 1
    layer.slots_of[expert, layer.replicas[expert]] = slot
    layer.replicas[expert] += 1
    layer.held[rank, loses] -= 1
    layer.held[rank, expert] += 1
    layer.placement[slot] = expert


@inner
def apply_move(layer, move):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    left = layer.placement[move.slot]
    _put(layer, move.slot, move.expert)
    if move.other_slot >= 0:
        _put(layer, move.other_slot, move.other_expert)
    for expert in (left, move.expert):
        layer.share[expert] = layer.load[expert] / layer.replicas[expert]
    layer.rank_load[:] = 0.0
    for slot in range(layer.placement.shape[0]):
        layer.rank_load[slot // layer.size] += layer.share[layer.placement[slot]]


@inner
def above(load, target):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return load - target if load > target else 0.0
