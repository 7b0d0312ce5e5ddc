# SPDX-License-Identifier: Apache-2.0
"""What was played, in the numbers that settings are chosen by."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.changes import windows_until_balanced
from vllm_eplb_plugin.simulation.playing import Played

WORST = 0.05
"""Part of the windows that count as the worst ones."""


@dataclass(frozen=True)
class Row:
    """A row is one combination in numbers; None: there is nothing to count it from."""

    recording: str
    policy: str
    redundant: int
    ranks: int
    nodes: int
    interval: int
    window: int
    mean: float | None
    """Balancedness as served, over all windows that follow the first plan."""
    worst: float | None
    """The same over the worst of them (`WORST`)."""
    lowest: float | None
    lowest_step: int | None
    """Step of that window."""
    changes: int
    """Of domain."""
    never: int
    """Those after which no window was balanced before the next."""
    until_balanced: float | None
    """Windows after a change until one is balanced, mean of the other changes."""
    slowest: int | None
    """Most of them."""
    plans: int
    triggered: int
    """Plans that a trigger asked for."""
    experts: int
    """Received from other ranks, in all."""
    bytes: int
    """Their weights."""
    bytes_per_plan: float | None
    busiest_bytes: int
    """The most that one rank receives in one rearrangement."""
    link_s: float | None
    """Seconds on the link in all: in each rearrangement what the busiest rank receives."""
    link_s_longest: float | None
    """The longest of them."""
    plan_ms: float | None
    """Processor time of a plan, median."""
    redundant_bytes: int
    """Memory of redundant experts on each rank, mean."""

    @property
    def as_served(self) -> float:
        """The mean, and nothing at all where no window had a load."""
        return 0.0 if self.mean is None else self.mean


def row_of(recording: Recording, played: Played, changes: Sequence[int], link: float | None) -> Row:
    """Count what came of a combination.

    Args:
        recording: That it was played over.
        played: What came of it.
        changes: See `changes.changes_of`.
        link: Bytes a second that a rank receives; None: not asked for.
    """
    combination, done = played.combination, played.rearrangements
    served = np.sort(played.served[~np.isnan(played.served)])
    waits = windows_until_balanced(played.balancedness, changes)
    reached = [wait for wait in waits if wait is not None]
    in_all = sum(one.bytes for one in done)
    times = None if link is None else [one.busiest_bytes / link for one in done]
    lowest = int(np.nanargmin(played.served)) + 1 if len(served) else None
    return Row(
        recording=name_of(recording),
        policy=combination.candidate.name,
        redundant=combination.redundant,
        ranks=combination.ranks,
        nodes=combination.nodes,
        interval=combination.interval,
        window=combination.window,
        mean=float(served.mean()) if len(served) else None,
        worst=float(served[: _worst(len(served))].mean()) if len(served) else None,
        lowest=float(served[0]) if len(served) else None,
        lowest_step=None if lowest is None else recording.windows[lowest].step,
        changes=len(waits),
        never=len(waits) - len(reached),
        until_balanced=statistics.fmean(reached) if reached else None,
        slowest=max(reached, default=None),
        plans=len(done),
        triggered=sum(one.triggered for one in done),
        experts=sum(one.experts for one in done),
        bytes=in_all,
        bytes_per_plan=in_all / len(done) if done else None,
        busiest_bytes=max((one.busiest_bytes for one in done), default=0),
        link_s=None if times is None else sum(times),
        link_s_longest=None if times is None else max(times, default=0.0),
        plan_ms=1e3 * statistics.median(one.seconds for one in done) if done else None,
        redundant_bytes=redundant_bytes(recording, combination.redundant, combination.ranks),
    )


def name_of(recording: Recording) -> str:
    """What people call it."""
    served = recording.served
    return served.model if served.model_index == 0 else f"{served.model} ({served.model_index})"


def labels_of(rows: Sequence[Row]) -> dict[str, str]:
    """A short name for each policy: settings in JSON are numbered."""
    policies = dict.fromkeys(row.policy for row in rows)
    settings = [policy for policy in policies if policy.lstrip().startswith("{")]
    numbered = {policy: f"planning {at}" for at, policy in enumerate(settings, 1)}
    return {policy: numbered.get(policy, policy) for policy in policies}


def redundant_bytes(recording: Recording, redundant: int, ranks: int) -> int:
    """Memory of redundant experts on each rank, mean over the ranks."""
    return redundant * sum(recording.served.expert_bytes) // ranks


def _worst(windows: int) -> int:
    return max(1, round(windows * WORST))
