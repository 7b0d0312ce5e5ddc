# SPDX-License-Identifier: Apache-2.0
"""What a policy's plans are worth, window after window."""

import time
from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.bench.comparison.contestants import Contestant
from vllm_eplb_plugin.bench.loads.drawn import Run
from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.placement.survival import lost_without
from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of
from vllm_eplb_plugin.planning.problem import Floats, Integers, Limits, Problem

BALANCED = 0.95
"""Mean balancedness of the layers from which a domain counts as served well."""


@dataclass(frozen=True)
class Cluster:
    """A cluster is what policies plan for, and within which limits."""

    shape: Shape
    expert_bytes: int
    limits: Limits
    load: str = "a load"
    """What it is called."""

    def problem(self, load: Floats, old: Integers) -> Problem:
        """State what is to be planned."""
        return Problem(
            load,
            old,
            self.shape.ranks,
            self.shape.nodes,
            self.shape.groups,
            np.full(self.shape.layers, self.expert_bytes, np.int64),
            limits=self.limits,
        )

    def balancedness(self, load: Floats, placement: Integers) -> float:
        """Mean over max rank load of each layer, averaged over the layers."""
        return float(balancedness_of_layers(self.problem(load, placement), placement).mean())

    def start(self, load: Floats) -> Integers:
        """Plan a load by the default policy, from vLLM's first placement."""
        from vllm_eplb_plugin.planning.policies.default import Default

        first = np.tile(np.arange(self.shape.slots) % self.shape.logical, (self.shape.layers, 1))
        return Default()(self.problem(load, first.astype(np.int64)))


@dataclass(frozen=True)
class Planned:
    """What one plan is worth, and what it cost."""

    now: float
    """Balancedness on the window that it was made from."""
    next: float
    """Balancedness on the window that it serves."""
    received: int
    """Experts that ranks get from others."""
    from_other_nodes: int
    """Those of them that no rank of the same node held."""
    busiest: int
    """Experts that the rank with most of them gets."""
    layers: int
    """Layers that change."""
    on_one_rank: float
    """Experts of a layer that are on one rank only, mean over the layers."""
    seconds: float
    """Processor time of this process."""


def plan(
    cluster: Cluster, contestant: Contestant, load: Floats, old: Integers
) -> tuple[Integers, float]:
    """Plan, and take the processor's time."""
    problem = cluster.problem(load, old)
    started = time.process_time()
    placement = contestant.plan(problem, f"{cluster.shape}, {cluster.load}")
    return placement, time.process_time() - started


def plan_windows(
    cluster: Cluster, contestant: Contestant, run: Run
) -> tuple[list[Planned], Integers]:
    """Plan from each window of a run and look at what the plan serves.

    Returns:
        A line for each window, and the last placement.
    """
    placement, plans = cluster.start(run.first), []
    for planned, served in zip(run.planned, run.served, strict=True):
        old = placement
        placement, seconds = plan(cluster, contestant, planned, old)
        costs = costs_of(cluster.problem(planned, old), placement)
        plans.append(
            Planned(
                cluster.balancedness(planned, placement),
                cluster.balancedness(served, placement),
                int(costs.received.sum()),
                int(costs.from_other_nodes.sum()),
                int(costs.received.sum(axis=0).max()),
                int((placement != old).any(axis=1).sum()),
                sum(lost_without(placement, cluster.shape.ranks)) / cluster.shape.layers,
                seconds,
            )
        )
    return plans, placement


def windows_until_balanced(
    cluster: Cluster, contestant: Contestant, placement: Integers, windows: Floats
) -> int | None:
    """Count windows that are served badly after a change of domain, planning after each.

    Args:
        cluster: Where.
        contestant: Plans.
        placement: ``[layers, slots]``, from before the change.
        windows: ``[windows, layers, logical]`` since then.

    Returns:
        None: it never was `BALANCED`.
    """
    for number, load in enumerate(windows):
        if cluster.balancedness(load, placement) >= BALANCED:
            return number
        placement, _ = plan(cluster, contestant, load, placement)
    return None
