# SPDX-License-Identifier: Apache-2.0
"""Only redundant slots change: each expert keeps a home, and what moves is bounded.

Before vLLM has moved anything, slot ``i`` is the home of expert ``i`` and the redundant slots come
behind, on the last ranks. In any placement an expert's home is its first slot, and a redundant slot
takes only experts whose home comes before it: so homes are found again in what this plans.
"""

from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.planning.budget import moves_within
from vllm_eplb_plugin.planning.problem import Integers, Problem
from vllm_eplb_plugin.planning.refining.redundant import refill


@dataclass(frozen=True)
class ReplicasOnly:
    """A policy that changes what redundant slots hold, from what they hold; never less balanced."""

    target: float = 0.99
    """Balancedness of a layer that is good enough."""

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise ValueError(f"target is {self.target:g}, not above 0 and at most 1")

    def __call__(self, problem: Problem) -> Integers:
        """Plan ``[layers, slots]``."""
        limits, ranks, (layers, slots) = problem.limits, problem.num_ranks, problem.old.shape
        placement: Integers = problem.old.copy()
        homes, targets = homes_of(problem), problem.load.sum(axis=1) / ranks / self.target
        moves, worths = np.empty((layers, 4 * slots, 4), np.int64), np.empty((layers, 4 * slots))
        made = np.zeros(layers, np.int64)
        where = (ranks, problem.num_nodes, targets, limits.other_node_cost)
        reach = _reach(problem, homes)
        refill(problem.load, placement, problem.old, homes, reach, *where, moves, worths, made)
        if not limits.are_budgets:
            return placement
        return moves_within(limits, problem.old, moves, worths, made, ranks, problem.bytes_of)


def homes_of(problem: Problem) -> Integers:
    """``[layers, logical]``: the first slot of each expert in the placement in force."""
    homes = np.full(problem.load.shape, problem.num_slots)
    layers = np.arange(problem.num_layers)[:, None]
    np.minimum.at(homes, (layers, problem.old), np.arange(problem.num_slots))
    return homes


def _reach(problem: Problem, homes: Integers) -> Integers:
    """``[layers]``: slots among which replicas stay with their home.

    Those of a node in layers whose homes have each expert group whole on one node. In others, as in
    vLLM's first placement, homes cannot go where groups would be whole.
    """
    slots, per_node = problem.num_slots, problem.num_slots // problem.num_nodes
    if not problem.respects_groups:
        return np.full(problem.num_layers, slots)
    nodes = (homes // per_node).reshape(problem.num_layers, problem.num_groups, -1)
    whole = (nodes == nodes[:, :, :1]).all(axis=(1, 2))
    return np.where(whole, per_node, slots)
