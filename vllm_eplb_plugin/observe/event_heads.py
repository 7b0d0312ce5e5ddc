# SPDX-License-Identifier: Apache-2.0
"""What all events have in common."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vllm_eplb_plugin.observe.identity import Source

SCHEMA_VERSION = 2

Mode = Literal["sync", "async"]


@dataclass(frozen=True)
class Head:
    """What every line begins with; the fields of its `Source` follow."""

    schema: int
    """Version of this document; it changes when a kind or field changes its meaning or goes."""
    event: str
    """The kind, one of those below."""
    time: float
    """When it happened, in Unix seconds."""


@dataclass(frozen=True)
class Event:
    """An event is something to tell."""

    kind: ClassVar[str]

    def line(self, source: Source, moment: float) -> dict[str, Any]:
        """Return the event as it is written: what ``source`` saw at ``moment``, in Unix seconds."""
        head = Head(SCHEMA_VERSION, self.kind, moment)
        # A placement has tens of thousands of numbers: vars() copies none of them.
        return vars(head) | vars(source) | vars(self)


@dataclass(frozen=True)
class EventsDropped(Event):
    """Events are missing here.

    The disk was full, the folder could not be written, or more waited than are kept. Serving went
    on, and one line of the log said so when it began. The next event is the first written again.
    """

    kind: ClassVar[str] = "events_dropped"

    number: int
    """Events that are missing since the last one of this kind."""
    reason: str
    """Why the last of them is."""


@dataclass(frozen=True)
class ModelEvent(Event):
    """Something happened to one model's experts."""

    model: str
    """The name that vLLM gives the model; before 0.32 a drafter may have its target's."""
    model_index: int
    """0: the model that is served; a drafter follows."""


@dataclass(frozen=True)
class RearrangementEvent(ModelEvent):
    """Something happened in one rearrangement."""

    rearrangement: int
    """Counts from 1, alike on every rank but those that elastic EP adds later."""
    step: int
    """Engine steps since the model was loaded, dummy steps included."""
    mode: Mode
    """Whether the model waits for all of it, or goes on meanwhile."""
