# SPDX-License-Identifier: Apache-2.0
"""What the ranks of one pipeline stage say on one host."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from vllm_eplb_plugin.observe.status import ModelStatus, RankStatus, Stall

_SECONDS_OF_THE_FRESH = 10.0
"""Ranks tell how they are once a second; what is older than another's by so much may be over."""


@dataclass(frozen=True)
class Stage:
    """A stage is one status of each of its ranks that are on this host."""

    number: int
    statuses: Sequence[RankStatus]
    """By EP rank; one at least."""
    now: float
    """Unix seconds."""

    @cached_property
    def fresh(self) -> list[RankStatus]:
        """Those that are about as new as the newest."""
        newest = max(status.time for status in self.statuses)
        return [one for one in self.statuses if newest - one.time < _SECONDS_OF_THE_FRESH]

    @property
    def models(self) -> Sequence[ModelStatus]:
        """Of EP rank 0, which alone counts them; empty where that is on another host."""
        return self.statuses[0].models if self.statuses[0].rank == 0 else []

    @property
    def worst(self) -> RankStatus:
        """The rank on which EPLB is off, else one on which it is paused."""
        return max(self.fresh, key=lambda one: ("on", "paused", "off").index(one.state))

    @property
    def stalls(self) -> Iterable[Stall]:
        """Each thread that stands still once, as seen by the rank that has seen it for longest."""
        longest: dict[tuple[int, str], Stall] = {}
        for stall in (stall for status in self.fresh for stall in status.stalled):
            seen = longest.setdefault((stall.rank, stall.thread), stall)
            if stall.seconds > seen.seconds:
                longest[stall.rank, stall.thread] = stall
        return longest.values()


def stages_of(statuses: Iterable[RankStatus], now: float) -> list[Stage]:
    """Sort statuses by stage; a rank that elastic EP has taken away since is left out."""
    by_stage: dict[int, list[RankStatus]] = {}
    for status in sorted(statuses, key=lambda one: (one.stage, one.rank)):
        by_stage.setdefault(status.stage, []).append(status)
    return [Stage(number, _still_there(ranks), now) for number, ranks in by_stage.items()]


def _still_there(statuses: list[RankStatus]) -> list[RankStatus]:
    num_ranks = max(statuses, key=lambda one: one.time).num_ranks  # 0: it does not know yet
    return [status for status in statuses if not num_ranks or status.rank < num_ranks]
