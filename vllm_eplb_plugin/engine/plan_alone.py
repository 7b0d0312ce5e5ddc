# SPDX-License-Identifier: Apache-2.0
"""Why nothing of a plan moves that all ranks agreed on."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from vllm_eplb_plugin.engine.plan_events import Origin
from vllm_eplb_plugin.placement.balance import balancedness, count_received_experts
from vllm_eplb_plugin.planning.guard import Plan


@dataclass(frozen=True)
class PlanAlone:
    """A plan that an operator wants to know, and that is not carried out.

    It takes milliseconds to say, which whoever wants to read it does.
    """

    plan: Plan
    proposal: torch.Tensor
    """``[layers, physical]``: what was planned."""
    expert_bytes: Sequence[int]
    """Of one expert, for each layer."""

    @cached_property
    def text(self) -> str:
        """What would move, and what it would be good for."""
        plan, ranks = replace(self.plan, new=self.proposal), self.plan.num_ranks
        rows = zip(plan.old, plan.new, strict=True)
        received = [count_received_experts(old[None], new[None], ranks)[0] for old, new in rows]
        sent = sum(map(operator.mul, received, self.expert_bytes))
        before, expected = (
            balancedness(plan.logical_load, placement, ranks) for placement in (plan.old, plan.new)
        )
        changed = sum(map(bool, plan.slots_changed))
        return (
            f"the plan alone was asked for: {sum(received)} experts ({sent / 1e6:.3g} MB) would "
            f"move, in {changed} of {len(received)} layers, and balancedness be {expected:.3f} "
            f"instead of {before:.3f}"
        )

    def __str__(self) -> str:
        return self.text


def why_nothing_moves(plan: Plan, origin: Origin | None, expert_bytes: Sequence[int]) -> object:
    """Say why, as text or as something that makes the text when it is asked for."""
    if plan.proposal is not None:
        return PlanAlone(plan, plan.proposal, expert_bytes)
    if origin is not None and origin.is_held_back(plan.old):
        return "limits hold all of it back"
    return "the plan is the placement in force"
