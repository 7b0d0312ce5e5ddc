# SPDX-License-Identifier: Apache-2.0
"""What happened to the experts of one arm while it was asked, from its events."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.activity.counts import outcome_of
from eval.activity.events import Told, files_that_speak_for_all, read_events
from eval.activity.moved_models import MovedModel
from eval.activity.placements import Load, Placement, balancedness, rank_loads
from eval.activity.totals import Outcome
from eval.errors import EventsError
from vllm_eplb_plugin.observe import events
from vllm_eplb_plugin.observe.events import MapsChecked, ModelEvent, WeightsChecked

_UNUSED = (WeightsChecked, MapsChecked)


@dataclass(frozen=True)
class Rearrangement:
    """One that finished while the questions were asked."""

    number: int
    mode: str
    time: float
    """When it finished, in seconds since the first question."""
    seconds: float
    """Since it started."""
    seconds_to_first_commit: float | None
    balancedness_before: float
    balancedness_expected: float
    balancedness_unmoved: float | None
    """The same load window under the placement that was in force at the first question."""
    slots_changed: int
    bytes_sent: int
    planned: events.RearrangementPlanned | None
    """None: the events are of an earlier release, which did not tell what is moved."""


@dataclass(frozen=True)
class Ended:
    """A rearrangement that did not finish."""

    outcome: Outcome
    time: float
    """In seconds since the first question."""
    reason: str
    """Empty: what was not committed yet was thrown away."""


@dataclass(frozen=True)
class Placements:
    """Where experts were at the first question and at the last answer, and the load between."""

    ranks: int
    first: Placement
    last: Placement
    expert_load: Load
    """``[layers, experts]``, summed over the load windows of all rearrangements."""
    rank_load_unmoved: Load
    """``[layers, ranks]``, of the same windows, had the first placement stayed."""
    rank_load_served: Load
    """``[layers, ranks]``, under the placement that was in force in each window."""


@dataclass
class Timeline:
    """Of one model, or of its part on one pipeline stage; a drafter has its own."""

    model: MovedModel
    rearrangements: list[Rearrangement] = field(default_factory=list)
    others: list[Ended] = field(default_factory=list)
    """In their order."""
    placements: Placements | None = None
    """None: the events have no placement, or no rearrangement finished."""


def read_timelines(folder: Path, asked_from: float, asked_until: float) -> list[Timeline]:
    """Read the events of rank 0 of each stage; what it does not tell, all ranks do alike.

    Args:
        folder: Of the arm's events; there may be none.
        asked_from: The first question was sent, in Unix seconds.
        asked_until: The last answer was received.

    Returns:
        One for each model that was rearranged: the served one, stage by stage, and then a drafter.

    Raises:
        EventsError: A line is no event, of another schema, or lacks a field.
    """
    readers: dict[tuple[int, int], _Reader] = {}
    for file in files_that_speak_for_all(folder):
        for told in read_events(file, _UNUSED):
            if told.time > asked_until:
                break
            event = told.event
            if not isinstance(event, ModelEvent):
                continue
            model = MovedModel(event.model_index, told.source.stage, event.model)
            key = model[:2]
            if key not in readers:
                readers[key] = _Reader(model, asked_from)
            try:
                readers[key].take(told)
            except (ValueError, IndexError, OverflowError) as error:
                raise EventsError(
                    f"{file}: the event {event.kind!r} of time {told.time} is not as "
                    f"docs/events.md says: {error!r}"
                ) from error
    found = [readers[key].timeline() for key in sorted(readers)]
    return [timeline for timeline in found if timeline.rearrangements or timeline.others]


class _Reader:
    """Follows one model's events in their order."""

    def __init__(self, model: MovedModel, asked_from: float) -> None:
        self._asked_from = asked_from
        self._timeline = Timeline(model)
        self._started: float | None = None
        self._first_commit: float | None = None
        self._planned: events.RearrangementPlanned | None = None
        self._loads: _Loads | None = None

    def take(self, told: Told) -> None:
        """The next one.

        Raises:
            ValueError, IndexError, OverflowError: Its parts do not fit together.
        """
        event, time = told.event, told.time
        asked = time >= self._asked_from
        if isinstance(event, events.RearrangementStarted):
            self._started, self._first_commit, self._planned = time, None, None
        elif isinstance(event, events.RearrangementPlanned):
            self._planned = event
        elif isinstance(event, events.LayerCommitted) and self._first_commit is None:
            self._first_commit = time
        elif isinstance(event, events.RearrangementFinished) and asked:
            self._timeline.rearrangements.append(self._finished(event, time))
        elif isinstance(event, events.RearrangementEnded) and asked:
            reason = getattr(event, "reason", "")
            self._timeline.others.append(Ended(outcome_of(event), time - self._asked_from, reason))
        elif isinstance(event, events.Placement):
            self._place(event, asked)

    def timeline(self) -> Timeline:
        """Of all events."""
        if self._loads is not None and self._loads.windows and self._timeline.rearrangements:
            self._timeline.placements = self._loads.placements()
        return self._timeline

    def _finished(self, event: events.RearrangementFinished, time: float) -> Rearrangement:
        figures = (event.seconds, event.balancedness_before, event.balancedness_expected)
        if not all(map(math.isfinite, figures)):
            raise ValueError(f"{figures} cannot be drawn")
        to_first = None
        if self._started is not None and self._first_commit is not None:
            to_first = self._first_commit - self._started
        return Rearrangement(
            number=event.rearrangement,
            mode=event.mode,
            time=time - self._asked_from,
            seconds=event.seconds,
            seconds_to_first_commit=to_first,
            balancedness_before=event.balancedness_before,
            balancedness_expected=event.balancedness_expected,
            balancedness_unmoved=None,
            slots_changed=sum(event.slots_changed),
            bytes_sent=event.bytes_sent,
            planned=self._planned,
        )

    def _place(self, event: events.Placement, asked: bool) -> None:
        placement = _matrix(event.physical_to_logical_map)
        loads, done = self._loads, self._timeline.rearrangements
        if not asked or loads is None or loads.first.shape != placement.shape:
            # Elastic EP changes the number of slots: what was before cannot be compared.
            self._loads = _Loads(event.num_ranks, placement)
        elif event.logical_load is not None:
            load = _matrix(event.logical_load)
            _require_experts(load.shape[1], loads.first, placement)
            unmoved = loads.add(load.astype(np.float64), placement)
            if done and done[-1].number == event.rearrangement:
                done[-1] = replace(done[-1], balancedness_unmoved=unmoved)


def _require_experts(experts: int, *placements: Placement) -> None:
    """A number that is none of an expert would be counted up to, however large."""
    for placement in placements:
        if placement.max() >= experts:
            raise ValueError(f"an expert that is none of {experts}")


def _matrix(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    # numpy alone takes three times as long for a list of lists.
    return np.array([array("q", row) for row in rows], dtype=np.int64)


class _Loads:
    """Adds up the load windows under the placements that they met."""

    def __init__(self, ranks: int, first: Placement) -> None:
        self.first = first
        self.windows = 0
        self._ranks = ranks
        self._current = first
        self._expert: Any = 0.0
        self._unmoved: Any = 0.0
        self._served: Any = 0.0

    def add(self, load: Load, planned: Placement) -> float:
        """Add a window, then put its plan in force; the window's balancedness had none been."""
        unmoved = rank_loads(load, self.first, self._ranks)
        self._unmoved = self._unmoved + unmoved
        self._served = self._served + rank_loads(load, self._current, self._ranks)
        self._expert = self._expert + load
        self._current = planned
        self.windows += 1
        return balancedness(unmoved)

    def placements(self) -> Placements:
        return Placements(
            self._ranks, self.first, self._current, self._expert, self._unmoved, self._served
        )
