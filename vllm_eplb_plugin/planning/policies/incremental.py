# SPDX-License-Identifier: Apache-2.0
"""From the placement in force to a balanced one by few moves.

vLLM's default policy plans from scratch, and so moves nearly every expert at every rearrangement.
This one changes what has to change: while a layer's fullest rank has more than its target, it makes
the one move that takes most of it away for each expert received (`planning.refining`).
"""

from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.planning.grouping import by_node, exchange_groups
from vllm_eplb_plugin.planning.problem import Floats, Integers, Problem
from vllm_eplb_plugin.planning.refining.refine import refine


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
        if self.kappa != 0 and self.kappa < 1:
            raise ValueError(f"kappa is {self.kappa:g}, neither 0 nor at least 1")

    def __call__(self, problem: Problem) -> Integers:
        """Plan ``[layers, slots]``."""
        targets = problem.load.sum(axis=1) / problem.num_ranks / self.target
        if not problem.respects_groups:
            placement: Integers = problem.old.copy()
            self._refine(problem, problem.load, placement, problem.old, targets)
            return placement
        rows = by_node(problem, exchange_groups(problem, self.exchange_worth))
        per_node = problem.num_ranks // problem.num_nodes
        within = rows.load.sum(axis=1) / per_node / self.target
        targets = np.maximum(np.repeat(targets, problem.num_nodes), within)
        self._refine(problem, rows.load, rows.placement, rows.old, targets, per_node)
        return rows.to_placement(problem.num_layers)

    def _refine(
        self,
        problem: Problem,
        load: Floats,
        placement: Integers,
        old: Integers,
        targets: Floats,
        ranks_of_node: int | None = None,
    ) -> None:
        limits, (rows, slots) = problem.limits, placement.shape
        moves, gains = np.empty((rows, 4 * slots, 4), np.int64), np.empty((rows, 4 * slots))
        refine(
            np.ascontiguousarray(load),
            placement,
            old,
            problem.num_ranks if ranks_of_node is None else ranks_of_node,
            problem.num_nodes if ranks_of_node is None else 1,
            targets,
            0.0 if limits.are_budgets else self.kappa,
            limits.other_node_cost,
            moves,
            gains,
            np.zeros(rows, np.int64),
        )
