# SPDX-License-Identifier: Apache-2.0
"""What the two threads of EPLB on a rank are doing, for whoever asks why nothing goes on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

Phase = Literal[
    "idle",
    "forward",
    "loads",
    "planning",
    "agreeing",
    "transfer",
    "waiting for ranks",
    "waiting for the model",
    "commit",
    "ended",
]
"""idle: nothing to do; forward: the model computes; loads: load windows are added up over ranks, or
arrive; planning: in the policy; agreeing: ranks vote on a placement; transfer: a layer's weights
arrive; waiting for ranks: this rank has the layer, others may not; waiting for the model: a layer
was handed over and is not committed; commit; ended: the thread has, by an error."""

Thread = Literal["process", "model", "worker"]
"""Who stands still: a whole rank, the thread that runs its model, or vLLM's async worker."""

WAITS_FOR_OTHERS: frozenset[Phase] = frozenset(
    {"idle", "loads", "agreeing", "waiting for ranks", "waiting for the model"}
)
"""Phases in which a thread that stands still does so because of somebody else."""


class Doing(NamedTuple):
    """A thread is in one phase, perhaps of a layer, since a moment.

    A tuple, which is made in a third of a frozen dataclass's time, four times a step.
    """

    phase: Phase
    layer: int | None = None
    since: float = 0.0
    """By the clock of whoever reads it: `time.monotonic`."""


class ThreadBoard:
    """A thread says here what it does: one assignment, which any other thread may read."""

    def __init__(self) -> None:
        self.doing = Doing("idle", None, time.monotonic())

    def enter(self, phase: Phase, layer: int | None = None) -> None:
        """Say that the thread is in this phase from now on."""
        self.doing = Doing(phase, layer, time.monotonic())

    @contextmanager
    def during(self, phase: Phase, layer: int | None = None) -> Iterator[None]:
        """Be in a phase, and then again in the one before, which goes on since it began."""
        before = self.doing
        self.enter(phase, layer)
        try:
            yield
        finally:
            self.doing = before
