# SPDX-License-Identifier: Apache-2.0
"""Everything that happens to a placement, as JSON lines: one file a rank (docs/events.md)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

SCHEMA_VERSION = 1

Mode = Literal["sync", "async"]


@dataclass(frozen=True)
class Event:
    """Something to tell."""

    kind: ClassVar[str]

    def line(self, rank: int, moment: float) -> dict[str, Any]:
        """As it is written: what ``rank`` saw at ``moment``, in Unix seconds."""
        head = {"schema": SCHEMA_VERSION, "event": self.kind, "time": moment, "rank": rank}
        # A placement has tens of thousands of numbers: vars() copies none of them.
        return head | vars(self)


@dataclass(frozen=True)
class EventsDropped(Event):
    """Events since the last one that are missing: the first that can be told again says so."""

    kind: ClassVar[str] = "events_dropped"

    number: int
    reason: str
    """Why the last one was dropped."""


@dataclass(frozen=True)
class ModelEvent(Event):
    """What happened to one model's experts."""

    model: str
    """The name vLLM gives the model; a drafter's differs from its target's."""


@dataclass(frozen=True)
class RearrangementEvent(ModelEvent):
    """What happened in one rearrangement."""

    rearrangement: int
    """Counts from 1 for each rank's process, the same on every rank."""
    step: int
    """Engine steps since the model was loaded, dummy steps included."""
    mode: Mode


@dataclass(frozen=True)
class RearrangementStarted(RearrangementEvent):
    """The load window is full and a new placement is asked for."""

    kind: ClassVar[str] = "rearrangement_started"


@dataclass(frozen=True)
class RearrangementFinished(RearrangementEvent):
    """The last layer of a new placement is visible to the model."""

    kind: ClassVar[str] = "rearrangement_finished"

    balancedness_before: float
    """Mean over max rank load of the load window under the old placement."""
    balancedness_expected: float
    """The same load under the new placement."""
    slots_changed: list[int]
    """For each MoE layer, the slots that hold another logical expert than before."""
    bytes_sent: int
    """Weights that went from one rank to another, summed over ranks and layers."""
    seconds: float
    """Since this rearrangement started."""


@dataclass(frozen=True)
class LayerCommitted(RearrangementEvent):
    """One layer's placement became visible to the model."""

    kind: ClassVar[str] = "layer_committed"

    layer: int
    """Index among the MoE layers."""
    slots_changed: int


@dataclass(frozen=True)
class PlacementRejected(RearrangementEvent):
    """A policy's result was not used; the old placement stays."""

    kind: ClassVar[str] = "placement_rejected"

    reason: str


@dataclass(frozen=True)
class Placement(ModelEvent):
    """Which logical expert every slot holds: when a model is added, then after a rearrangement."""

    kind: ClassVar[str] = "placement"

    rearrangement: int
    """0 when the model was added."""
    step: int
    mode: Mode | None
    """None when the model was added."""
    num_ranks: int
    physical_to_logical_map: list[list[int]]
    """``[layers][physical]``"""
    logical_load: list[list[int]] | None
    """``[layers][logical]``, tokens of the load window that it was planned from, all ranks."""


@dataclass(frozen=True)
class WeightsChecked(ModelEvent):
    """A layer's local slots were compared with the weights gathered at load."""

    kind: ClassVar[str] = "weights_checked"

    layer: int
    slots: int
    """Local slots compared."""
    mismatched_slots: list[int]
    """Global slot numbers that hold other weights than those of the expert the map names."""


@dataclass(frozen=True)
class MapsChecked(ModelEvent):
    """A layer's two derived maps, as the router reads them, were compared with its placement."""

    kind: ClassVar[str] = "maps_checked"

    layer: int
    experts: int
    """Logical experts compared."""
    mismatched_experts: list[int]
    """Logical experts whose slots or replica count are not those of the placement."""
