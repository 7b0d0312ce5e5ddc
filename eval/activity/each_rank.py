# SPDX-License-Identifier: Apache-2.0
"""What is asked of each rank, not of those alone that speak for all. Pure functions."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from eval.activity.events import Told
from vllm_eplb_plugin.observe.events import (
    Event,
    MapsChecked,
    RearrangementEnded,
    RearrangementStarted,
    WeightsChecked,
)


def longest_under_way(
    ranks: Iterable[Iterable[Told]], started: float, finished: float
) -> float | None:
    """`Activity.under_way_seconds`, of the rank and the model with the most.

    On every rank and for every model a start is followed by its outcome, unless something hangs.
    One that began before the questions counts, too, if it should have ended while they were asked.
    """
    longest: float | None = None
    for told in ranks:
        open_since: dict[int, float] = {}
        for one in told:
            if isinstance(one.event, RearrangementStarted) and one.time <= finished:
                open_since[one.event.model_index] = one.time
            elif isinstance(one.event, RearrangementEnded):
                open_since.pop(one.event.model_index, None)
        for since in open_since.values():
            longest = max(longest or 0.0, finished - max(since, started))
    return longest


def weight_checking_ranks(told: Iterable[Told]) -> list[int]:
    """The EP ranks that compared weights, on every pipeline stage."""
    return _ranks_with(told, lambda event: isinstance(event, WeightsChecked) and event.slots > 0)


def map_checking_ranks(told: Iterable[Told]) -> list[int]:
    """The EP ranks that compared the router's maps, on every pipeline stage."""
    return _ranks_with(told, lambda event: isinstance(event, MapsChecked) and event.experts > 0)


def _ranks_with(told: Iterable[Told], checked: Callable[[Event], bool]) -> list[int]:
    by_stage: dict[int, set[int]] = defaultdict(set)
    for one in told:
        ranks = by_stage[one.source.stage]
        if checked(one.event):
            ranks.add(one.source.rank)
    return sorted(set.intersection(*by_stage.values())) if by_stage else []
