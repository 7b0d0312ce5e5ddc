# SPDX-License-Identifier: Apache-2.0
"""From the placement in force to a balanced one by few moves.

vLLM's default policy plans from scratch, and so moves nearly every expert at every rearrangement.
This one changes what has to change: while a layer's fullest rank has more than its target, it makes
the one move that takes most of it away for each expert received (`planning.refining`).
"""

from dataclasses import dataclass, replace

import numpy as np

from vllm_eplb_plugin.planning.budget import moves_within
from vllm_eplb_plugin.planning.costs import balancedness_of_layers
from vllm_eplb_plugin.planning.grouping import (
    by_node,
    exchange_groups,
    gather_groups,
    whole_groups,
)
from vllm_eplb_plugin.planning.problem import Floats, Integers, Problem
from vllm_eplb_plugin.planning.refining.refine import refine
from vllm_eplb_plugin.planning.steps.limits import within_limits


@dataclass(frozen=True)
class Incremental:
    """A policy that starts from the placement in force; never less balanced than that."""

    target: float = 0.99
    """Balancedness of a layer that is good enough."""
    kappa: float = 2.0
    """Before it refines, an expert whose replicas have so many times the share of another's gets
    one of the other's; 0: never. Not with a budget, whose moves are the best ones first."""
    exchange_worth: float = 0.02
    """Groups on nodes: the part of a node's mean load for which two groups are exchanged."""

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise ValueError(f"target is {self.target:g}, not above 0 and at most 1")
        if not (self.kappa == 0 or 1 <= self.kappa < np.inf):
            raise ValueError(f"kappa is {self.kappa:g}, neither 0 nor at least 1")
        if not 0 <= self.exchange_worth < np.inf:
            raise ValueError(f"exchange_worth is {self.exchange_worth:g}, not at least 0")

    def __call__(self, problem: Problem) -> Integers:
        """Plan ``[layers, slots]``."""
        if not problem.respects_groups:
            targets = self._targets(problem.load, problem.num_ranks)
            first: Integers = problem.old.copy()
            return self._refine(problem, problem.load, first, problem.old, targets, 1)
        if not problem.limits.are_budgets or whole_groups(problem).all():
            return self._plan_nodes(problem)
        # Gathering a group is no matter of single moves.
        gathered = self._plan_nodes(replace(problem, limits=problem.limits.without_budgets))
        within = within_limits(problem, gathered)
        if (within != problem.old).any():
            return within
        return self(replace(problem, num_groups=1))  # nothing else is affordable

    def _targets(self, load: Floats, ranks: int) -> Floats:
        targets: Floats = load.sum(axis=1) / ranks / self.target
        return targets

    def _plan_nodes(self, problem: Problem) -> Integers:
        """Plan each node by itself, with whole groups."""
        nodes = problem.num_nodes
        worth = np.inf if problem.limits.are_budgets else self.exchange_worth
        rows = by_node(problem, exchange_groups(problem, gather_groups(problem), worth))
        targets = np.repeat(self._targets(problem.load, problem.num_ranks), nodes)
        targets = np.maximum(targets, self._targets(rows.load, problem.num_ranks // nodes))
        refined = self._refine(problem, rows.load, rows.placement, rows.old, targets, nodes)
        placement = rows.to_placement(refined, problem.num_layers)
        # Groups that were gathered or exchanged may be worse to spread than they were.
        before = balancedness_of_layers(problem, problem.old)
        better = balancedness_of_layers(problem, placement) > before
        return np.where(better[:, None], placement, problem.old)

    def _refine(
        self,
        problem: Problem,
        load: Floats,
        placement: Integers,
        old: Integers,
        targets: Floats,
        rows_of_layer: int,
    ) -> Integers:
        limits, (rows, slots) = problem.limits, placement.shape
        most, ranks = 4 * slots, problem.num_ranks // rows_of_layer
        moves, worths = np.empty((rows, most, 4), np.int64), np.empty((rows, most))
        made = np.zeros(rows, np.int64)
        kappa = 0.0 if limits.are_budgets else self.kappa
        nodes, cost = problem.num_nodes // rows_of_layer, limits.other_node_cost
        refine(load, placement, old, ranks, nodes, targets, kappa, cost, moves, worths, made)
        if not limits.are_budgets:
            return placement
        return moves_within(limits, old, moves, worths, made, ranks, problem.bytes_of)
