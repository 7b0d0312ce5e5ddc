# SPDX-License-Identifier: Apache-2.0
"""The life of a rearrangement: started, planned, layers committed, and exactly one outcome.

::

    started ──> planned ──> layer committed ... ──> finished   its last layer is in force
       │           ├──> skipped                     vLLM finds it not worth its cost (ROCm)
       │           ├──> drained                     vLLM throws away what is not committed
       │           ├──> stalled                     it was given up, because it stood still
       │           └──> failed                      what carried it out gave up
       ├──> skipped                                 the plan changes nothing
       ├──> rejected                                it breaks a rule, or ranks do not agree on it
       └──> failed
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vllm_eplb_plugin.observe.events import Mode

Outcome = Literal["finished", "skipped", "rejected", "drained", "failed", "stalled"]


@dataclass
class Rearrangement:
    """A rearrangement of one model, from its start to its outcome.

    In async mode two threads advance it, one after the other: the one that runs the model starts
    it before it wakes the one that plans, and that one plans before it hands a layer over.
    """

    number: int
    """It counts from 1 in each process."""
    step: int
    """Engine steps before it started."""
    mode: Mode
    started: float
    """By `time.monotonic`."""
    layers: int
    """MoE layers of the model."""
    awaited: set[int] | None = None
    """Layers that change and are not committed; None: it is not planned."""
    outcome: Outcome | None = None

    def __post_init__(self) -> None:
        if self.number < 1 or self.layers < 1:
            raise ValueError(f"rearrangement {self.number} of {self.layers} layers: both count")

    @property
    def is_open(self) -> bool:
        """The outcome is still to come."""
        return self.outcome is None

    def plan(self, changed_layers: Iterable[int]) -> None:
        """Take note of the placement that was agreed on.

        Args:
            changed_layers: Those in which some slot gets another logical expert.

        Raises:
            ValueError: It is planned already, is over, or has no such layer.
        """
        awaited = set(changed_layers)
        if self.awaited is not None or not self.is_open:
            raise ValueError(f"rearrangement {self.number} cannot be planned any more: {self}")
        if not awaited <= set(range(self.layers)):
            raise ValueError(f"{sorted(awaited)} are no layers of {self.layers}")
        self.awaited = awaited

    def commit(self, layers: Iterable[int]) -> list[int]:
        """Take note of layers that became visible; return those that change, in order."""
        awaited = self.awaited
        if not awaited or self.outcome is not None:
            return []
        changed = [layer for layer in layers if layer in awaited]
        awaited.difference_update(changed)
        return changed

    def end(self, outcome: Outcome) -> bool:
        """Give it its outcome; return False if it has one, which stays.

        Raises:
            ValueError: It cannot have finished, because layers that change are not committed.
        """
        if outcome == "finished" and (self.awaited is None or self.awaited):
            raise ValueError(f"rearrangement {self.number} has not finished: {self}")
        if not self.is_open:
            return False
        self.outcome = outcome
        return True
