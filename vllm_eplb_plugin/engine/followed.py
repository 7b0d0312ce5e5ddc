# SPDX-License-Identifier: Apache-2.0
"""What is kept of the rearrangement of one model while it is followed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from vllm_eplb_plugin.engine.plan_events import Moment
from vllm_eplb_plugin.observe.events import Trigger
from vllm_eplb_plugin.observe.identity import ModelId
from vllm_eplb_plugin.observe.progress import Rearrangement
from vllm_eplb_plugin.planning.guard import Plan


@dataclass(frozen=True)
class Moved:
    """A model whose experts are moved."""

    id: ModelId
    expert_bytes: Sequence[int]
    """Of one expert's weights, for each MoE layer."""


@dataclass(eq=False)
class Followed:
    """A rearrangement of one model, and why it is made."""

    model: Moved
    progress: Rearrangement
    trigger: Trigger
    only_plan: bool = False
    plan: Plan | None = None
    """None: there is none yet, or it was rejected."""

    @property
    def seconds(self) -> float:
        """How long ago it started."""
        return time.monotonic() - self.progress.started

    def moment(self, step: int) -> Moment:
        """Make the head of its events in an engine step."""
        model, progress = self.model.id, self.progress
        return Moment(model.model, model.model_index, progress.number, step, progress.mode)

    @property
    def layers_left(self) -> frozenset[int]:
        """Layers that change and are not committed."""
        return frozenset(self.progress.awaited or ())

    @property
    def has_moved(self) -> bool:
        """Whether some layer has another placement than before."""
        plan = self.plan
        return plan is not None and len(self.layers_left) < sum(map(bool, plan.slots_changed))
