# SPDX-License-Identifier: Apache-2.0
"""A policy on a load in numbers: means over all plans of all seeds."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from vllm_eplb_plugin.bench.comparison.contestants import Contestant
from vllm_eplb_plugin.bench.comparison.loads import Task
from vllm_eplb_plugin.bench.comparison.windows import (
    Cluster,
    Planned,
    plan_windows,
    windows_until_balanced,
)
from vllm_eplb_plugin.planning.problem import Limits


@dataclass(frozen=True)
class PolicyRow:
    """A row is one policy on one load of one shape."""

    shape: str
    ranks: int
    load: str
    policy: str
    now: float
    """Balancedness on the window that was planned from."""
    next: float
    """Balancedness on the window that was served."""
    next_by_seed: list[float]
    received: float
    """Experts of a plan that ranks get from others."""
    from_other_nodes: float
    """Those of them that no rank of the same node held."""
    busiest: float
    """Experts that the rank with most of them gets."""
    bytes_received: float
    layers: float
    """Layers that change."""
    on_one_rank: float
    """Experts of a layer that are on one rank only, whose weights are lost with it."""
    windows_until_balanced: float | None
    """Windows served below `windows.BALANCED` after a change of domain; None: there was a run that
    did not get there."""
    plan_ms: float
    """Processor time, median."""


def compare(
    tasks: list[Task],
    contestants: list[Contestant],
    seeds: int,
    expert_bytes: int,
    limits: Limits,
) -> Iterator[PolicyRow]:
    """Let all policies plan all loads."""
    for task in tasks:
        cluster = Cluster(task.shape, expert_bytes, limits, task.load)
        for contestant in contestants:
            yield _row(task, cluster, contestant, seeds)


def _row(task: Task, cluster: Cluster, contestant: Contestant, seeds: int) -> PolicyRow:
    by_seed: list[list[Planned]] = []
    waits: list[int | None] = []
    for seed in range(seeds):
        by_seed.append([])
        for run in task.runs(seed):
            plans, last = plan_windows(cluster, contestant, run)
            by_seed[-1] += plans
            waits.append(windows_until_balanced(cluster, contestant, last, run.changed))
    plans = [plan for plans in by_seed for plan in plans]
    received = statistics.fmean(plan.received for plan in plans)
    reached = [wait for wait in waits if wait is not None]
    return PolicyRow(
        shape=str(task.shape),
        ranks=task.shape.ranks,
        load=task.load,
        policy=contestant.name,
        now=statistics.fmean(plan.now for plan in plans),
        next=statistics.fmean(plan.next for plan in plans),
        next_by_seed=[statistics.fmean(plan.next for plan in plans) for plans in by_seed],
        received=received,
        from_other_nodes=statistics.fmean(plan.from_other_nodes for plan in plans),
        busiest=statistics.fmean(plan.busiest for plan in plans),
        bytes_received=received * cluster.expert_bytes,
        layers=statistics.fmean(plan.layers for plan in plans),
        on_one_rank=statistics.fmean(plan.on_one_rank for plan in plans),
        windows_until_balanced=(statistics.fmean(reached) if len(reached) == len(waits) else None),
        plan_ms=statistics.median(plan.seconds for plan in plans) * 1000,
    )
