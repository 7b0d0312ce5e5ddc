# SPDX-License-Identifier: Apache-2.0
"""What happened to the experts of one arm while it was asked, from rank 0's events."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.errors import EventsError
from eval.events import read_events
from eval.reporting.load import Load, Placement, balancedness, rank_loads

_UNUSED = ("weights_checked", "maps_checked", "events_dropped")


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
    """Of one model; a drafter has its own."""

    model: str
    rearrangements: list[Rearrangement] = field(default_factory=list)
    placements: Placements | None = None
    """None: the events have no placement, or no rearrangement finished."""


def read_timelines(folder: Path, asked_from: float, asked_until: float) -> list[Timeline]:
    """Read rank 0's events; what it does not tell, all ranks do alike.

    Args:
        folder: Of the arm's events; there may be none.
        asked_from: The first question was sent, in Unix seconds.
        asked_until: The last answer was received.

    Returns:
        One for each model, in the order of their first rearrangement.

    Raises:
        EventsError: A line is no event, of another schema, or lacks a field.
    """
    readers: dict[str, _Reader] = {}
    file = folder / "rank0.jsonl"
    if not file.exists():
        return []
    for event in read_events(file, _UNUSED):
        if event["time"] > asked_until:
            break
        try:
            name = str(event["model"])
            if name not in readers:
                readers[name] = _Reader(name, asked_from)
            readers[name].take(event)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EventsError(
                f"{file}: the event {event['event']!r} of time {event['time']} is not as "
                f"docs/events.md says: {error!r}"
            ) from error
    return [timeline for reader in readers.values() for timeline in reader.finish()]


class _Reader:
    """Follows one model's events in their order."""

    def __init__(self, model: str, asked_from: float) -> None:
        self._asked_from = asked_from
        self._timeline = Timeline(model)
        self._started: float | None = None
        self._first_commit: float | None = None
        self._loads: _Loads | None = None

    def take(self, event: dict[str, Any]) -> None:
        kind, time = event["event"], float(event["time"])
        if kind == "rearrangement_started":
            self._started, self._first_commit = time, None
        elif kind == "layer_committed" and self._first_commit is None:
            self._first_commit = time
        elif kind == "rearrangement_finished" and time >= self._asked_from:
            self._timeline.rearrangements.append(self._finished(event, time))
        elif kind == "placement":
            self._place(event, asked=time >= self._asked_from)

    def finish(self) -> Iterator[Timeline]:
        if self._timeline.rearrangements:
            if self._loads is not None and self._loads.windows:
                self._timeline.placements = self._loads.placements()
            yield self._timeline

    def _finished(self, event: dict[str, Any], time: float) -> Rearrangement:
        to_first = None
        if self._started is not None and self._first_commit is not None:
            to_first = self._first_commit - self._started
        return Rearrangement(
            number=int(event["rearrangement"]),
            mode=str(event["mode"]),
            time=time - self._asked_from,
            seconds=float(event["seconds"]),
            seconds_to_first_commit=to_first,
            balancedness_before=float(event["balancedness_before"]),
            balancedness_expected=float(event["balancedness_expected"]),
            balancedness_unmoved=None,
            slots_changed=sum(event["slots_changed"]),
            bytes_sent=int(event["bytes_sent"]),
        )

    def _place(self, event: dict[str, Any], asked: bool) -> None:
        placement = _matrix(event["physical_to_logical_map"])
        ranks, done = int(event["num_ranks"]), self._timeline.rearrangements
        loads = self._loads
        if not asked or loads is None or loads.first.shape != placement.shape:
            # Elastic EP changes the number of slots: what was before cannot be compared.
            self._loads = _Loads(ranks, placement)
            return
        unmoved = loads.add(_matrix(event["logical_load"]).astype(np.float64), placement)
        if done and done[-1].number == event["rearrangement"]:
            done[-1] = replace(done[-1], balancedness_unmoved=unmoved)


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
