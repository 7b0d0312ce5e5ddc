# SPDX-License-Identifier: Apache-2.0
"""What is told of EPLB itself: that something stands still, or that it is off."""

from dataclasses import dataclass
from typing import ClassVar

from vllm_eplb_plugin.observe.event_heads import Event
from vllm_eplb_plugin.observe.phases import Phase, Thread


@dataclass(frozen=True)
class StallBegan(Event):
    """A thread of EPLB, or a whole rank, stands still for longer than `watch.warn_after_s`.

    Each rank tells what it sees; `EPLB stands still` in the log is the same.
    """

    kind: ClassVar[str] = "stall_began"

    stalled_rank: int
    """EP rank that does not go on, and not one that waits for it; -1: that of another stage, which
    keeps the store through which ranks hear each other."""
    thread: Thread
    """`process`: it tells nothing any more; else the thread that runs the model, or the worker."""
    phase: Phase
    """In which it stands, or which it told last."""
    layer: int | None
    """MoE layer that is under way there."""
    seconds: float
    """For which it stands still."""


@dataclass(frozen=True)
class StallEnded(StallBegan):
    """It goes on, or something else stands still now."""

    kind: ClassVar[str] = "stall_ended"


@dataclass(frozen=True)
class TurnedOff(Event):
    """EPLB is off until the server starts again, on all ranks since the same step."""

    kind: ClassVar[str] = "turned_off"

    reason: str
    """Which rank could not go on, and why."""
