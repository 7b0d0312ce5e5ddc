# SPDX-License-Identifier: Apache-2.0
"""How well a row of short windows is served, if planned every so many of them or at a trigger."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from vllm_eplb_plugin.bench.comparison.contestants import Contestant
from vllm_eplb_plugin.bench.comparison.windows import BALANCED, Cluster, plan
from vllm_eplb_plugin.planning.costs import costs_of
from vllm_eplb_plugin.planning.problem import Floats, Integers
from vllm_eplb_plugin.planning.triggers import Rule, Watch


@dataclass(frozen=True)
class Schedule:
    """A schedule says when is planned."""

    every: int
    """Windows between two plans."""
    recorded: int
    """Windows, at most, whose load an interval's plan is made from."""
    rule: Rule = field(default_factory=Rule)
    """Looked at after each window; what it triggers is planned from that window alone, and starts
    the interval anew, as vLLM's counter does."""


def parse_schedule(text: str, below: float | None, changed: float | None) -> Schedule:
    """Read ``EVERY`` or ``EVERY/RECORDED``, with what triggers.

    Raises:
        ValueError: Neither.
    """
    every, slash, recorded = text.partition("/")
    numbers = [every, recorded] if slash else [every, every]
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise ValueError(f"{text!r} is neither WINDOWS nor WINDOWS/RECORDED, such as 1/2")
    return Schedule(int(numbers[0]), int(numbers[1]), Rule(below, changed))


@dataclass(frozen=True)
class Served:
    """What was served, and what it took."""

    balancedness: Floats
    """``[windows]``."""
    received: Integers
    """``[windows]``: experts received from other ranks, by what was planned after each."""
    planned: Integers
    """``[windows]``: 0 no plan, 1 an interval's, 2 a trigger's."""

    @property
    def mean(self) -> float:
        return float(self.balancedness.mean())

    def until_balanced(self, changes: list[int]) -> list[int | None]:
        """For each change of domain: windows from it on that are not `BALANCED`; None: it ended
        before one was.

        Args:
            changes: The first window of each domain but the first.
        """
        found: list[int | None] = []
        for first, end in pairwise([*changes, len(self.balancedness)]):
            good = np.flatnonzero(self.balancedness[first:end] >= BALANCED)
            found.append(int(good[0]) if len(good) else None)
        return found


def serve(
    cluster: Cluster, contestant: Contestant, schedule: Schedule, windows: Floats, before: Floats
) -> Served:
    """Serve windows ``[windows, layers, logical]``, planning after some of them.

    Args:
        cluster: Where.
        contestant: Plans.
        schedule: When.
        windows: What comes.
        before: ``[layers, logical]``: the placement at the start is the default policy's for it.
    """
    placement = cluster.start(before)
    watch = Watch(schedule.rule)
    watch.planned(before)
    served, received = np.zeros(len(windows)), np.zeros(len(windows), np.int64)
    why, last, known = np.zeros(len(windows), np.int64), -1, 0
    for number, load in enumerate(windows):
        served[number] = cluster.balancedness(load, placement)
        reason = watch.look(load, placement, cluster.shape.ranks)
        if reason is None and number - last < schedule.every:
            continue
        # What came before another load began says nothing of it.
        known = number if reason == "changed_load" else max(known, number + 1 - schedule.recorded)
        first = known if reason is None else number
        recent = windows[first : number + 1].sum(axis=0)
        why[number], last = 1 if reason is None else 2, number
        old = placement
        placement, _ = plan(cluster, contestant, recent, old)
        received[number] = costs_of(cluster.problem(recent, old), placement).received.sum()
        watch.planned(recent)
    return Served(served, received, why)
