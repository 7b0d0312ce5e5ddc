# SPDX-License-Identifier: Apache-2.0
"""Expert groups that stay whole on one node: a layer as several problems, one a node.

vLLM's default policy keeps each group of experts on one node, where the router chooses groups
first, as DeepSeek-V3's does: a token then goes to few nodes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.planning.problem import Floats, Integers, Problem


@dataclass(frozen=True)
class NodeRows:
    """The layers of a problem by node: a row is one node's experts in a layer, numbered anew."""

    experts: Integers
    """``[rows, logical of a node]``: the logical expert of each number."""
    load: Floats
    """``[rows, logical of a node]``."""
    placement: Integers
    """``[rows, slots of a node]``, in numbers of the row."""
    old: Integers
    """The same of the placement in force; -1 for an expert that is on another node now."""

    def to_placement(self, rows: Integers, layers: int) -> Integers:
        """Write rows, in their numbers, as a placement ``[layers, slots]``."""
        placement: Integers = np.take_along_axis(self.experts, rows, axis=1)
        return placement.reshape(layers, -1)


def whole_groups(problem: Problem) -> NDArray[np.bool_]:
    """Say of which layers the placement in force has each group on one node, ``[layers]``."""
    on_node = _groups_on_nodes(problem, problem.old)
    each = problem.num_groups // problem.num_nodes
    one_home = (on_node.sum(axis=1) == 1).all(axis=1)
    whole: NDArray[np.bool_] = one_home & (on_node.sum(axis=2) == each).all(axis=1)
    return whole


def _groups_on_nodes(problem: Problem, placement: Integers) -> NDArray[np.bool_]:
    """``[layers, nodes, groups]``: whether a node has an expert of a group."""
    size = problem.num_experts // problem.num_groups
    layers, nodes = problem.num_layers, problem.num_nodes
    groups = (placement // size).reshape(layers, nodes, -1)
    on_node = np.zeros((layers, nodes, problem.num_groups), np.bool_)
    np.put_along_axis(on_node, groups, True, axis=2)
    return on_node


def gather_groups(problem: Problem) -> Integers:
    """Put each group on one node, in layers where one is on several, as in vLLM's first placement.

    Returns:
        ``[layers, slots]`` with whole groups, each where most of its slots are, if there is room.
    """
    placement: Integers = problem.old.copy()
    for layer in np.flatnonzero(~whole_groups(problem)):
        by_node = placement[layer].reshape(problem.num_nodes, -1)
        for slots, mine in zip(by_node, _homes(problem, by_node), strict=True):
            _settle(slots, mine, problem.load[layer])
    return placement


def _homes(problem: Problem, by_node: Integers) -> list[Integers]:
    """The logical experts that each node is to hold."""
    groups, nodes = problem.num_groups, problem.num_nodes
    size, each = problem.num_experts // groups, groups // nodes
    there = np.stack([np.bincount(slots // size, minlength=groups) for slots in by_node])
    homes: list[list[int]] = [[] for _ in range(nodes)]
    left = set(range(groups))
    for place in np.argsort(-there, axis=None, kind="stable").tolist():
        node, group = divmod(place, groups)
        if group in left and len(homes[node]) < each:
            homes[node].append(group)
            left.remove(group)
    return [(np.array(home)[:, None] * size + np.arange(size)).ravel() for home in homes]


def _settle(slots: Integers, mine: Integers, load: Floats) -> None:
    """Let a node's slots hold its experts only; those that do and are the first to do so stay."""
    first = np.zeros(len(slots), np.bool_)
    first[np.unique(slots, return_index=True)[1]] = True
    own = np.isin(slots, mine)
    free = [*np.flatnonzero(~own), *np.flatnonzero(own & ~first)]
    missing = mine[~np.isin(mine, slots)]
    slots[free[: len(missing)]] = missing
    for slot in free[len(missing) : max(len(missing), int((~own).sum()))]:
        held = np.bincount(slots[np.isin(slots, mine)], minlength=len(load))
        slots[slot] = mine[(load[mine] / held[mine]).argmax()]


def exchange_groups(problem: Problem, start: Integers, worth: float) -> Integers:
    """Exchange groups between nodes while that takes load off the fullest node.

    Args:
        problem: What is planned.
        start: ``[layers, slots]`` with whole groups.
        worth: The part of a node's mean load that an exchange has to take off; each one moves all
            weights of two groups. Infinite: none is exchanged.

    Returns:
        A placement ``[layers, slots]`` with whole groups.
    """
    placement: Integers = start.copy()
    if np.isinf(worth):
        return placement
    nodes, groups = problem.num_nodes, problem.num_groups
    loads = problem.load.reshape(problem.num_layers, groups, -1).sum(axis=2)
    homes = _groups_on_nodes(problem, placement).argmax(axis=1)
    for layer, (load, home) in enumerate(zip(loads, homes, strict=True)):
        for _ in range(groups):
            node_load = np.bincount(home, load, minlength=nodes)
            full = int(node_load.argmax())
            inside, outside = np.flatnonzero(home == full), np.flatnonzero(home != full)
            shift = load[inside][:, None] - load[outside][None, :]
            after = np.maximum(node_load[full] - shift, node_load[home[outside]] + shift)
            best = int(after.argmin())
            if node_load[full] - after.flat[best] <= worth * node_load.mean():
                break
            one, other = inside[best // len(outside)], outside[best % len(outside)]
            _exchange(placement[layer], problem.load[layer], one, other, groups)
            home[one], home[other] = home[other], home[one]
    return placement


def _exchange(row: Integers, load: Floats, one: int, other: int, groups: int) -> None:
    size = len(load) // groups
    slots = {group: np.flatnonzero(row // size == group) for group in (one, other)}
    for group, there in ((one, slots[other]), (other, slots[one])):
        row[there] = group * size + _replicate(load[group * size : (group + 1) * size], len(there))


def _replicate(load: Floats, slots: int) -> Integers:
    """``[slots]``: each expert once, the rest to those with the greatest share."""
    experts, replicas = list(range(len(load))), np.ones(len(load))
    for _ in range(slots - len(load)):
        hottest = int((load / replicas).argmax())
        replicas[hottest] += 1
        experts.append(hottest)
    return np.array(experts, np.int64)


def by_node(problem: Problem, placement: Integers) -> NodeRows:
    """Take a placement with whole groups apart, by node."""
    layers, nodes, size = problem.num_layers, problem.num_nodes, problem.num_experts
    size //= problem.num_groups
    homes = _groups_on_nodes(problem, placement).argmax(axis=1)
    groups = np.argsort(homes, axis=1, kind="stable")
    experts = (groups[:, :, None] * size + np.arange(size)).reshape(layers, -1)
    number = np.empty((layers, problem.num_experts), np.int64)
    within = np.tile(np.arange(problem.num_experts // nodes), nodes)
    np.put_along_axis(number, experts, np.broadcast_to(within, experts.shape), axis=1)
    rows = (layers * nodes, -1)
    node_of_slot = np.arange(problem.num_slots) // (problem.num_slots // nodes)
    old_home = np.take_along_axis(homes, problem.old // size, axis=1)
    old = np.take_along_axis(number, problem.old, axis=1)
    return NodeRows(
        experts.reshape(rows),
        np.ascontiguousarray(np.take_along_axis(problem.load, experts, axis=1).reshape(rows)),
        np.take_along_axis(number, placement, axis=1).reshape(rows),
        np.where(old_home == node_of_slot, old, -1).reshape(rows),
    )
