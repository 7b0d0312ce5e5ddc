# SPDX-License-Identifier: Apache-2.0
"""No placement leaves a policy unchecked, and no rank acts on one that another rank has not."""

import functools
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch.distributed import ProcessGroup, ReduceOp, all_reduce

from vllm_eplb_plugin.placement.maps import (
    InvalidPlacementError,
    count_changed_slots,
    validate_placement,
)

_guarded = threading.local()
"""Whether this thread asks a policy whose answer will be checked: it is checked once."""


@dataclass(frozen=True)
class Plan:
    """A plan is an accepted placement and what it was made from, on the CPU."""

    logical_load: torch.Tensor
    """``[layers, logical]``, tokens of each logical expert in the load window, all ranks."""
    old: torch.Tensor
    """``[layers, physical]``, the placement in force."""
    new: torch.Tensor
    """``[layers, physical]`` int64, the placement to come; ``old`` if the policy's was rejected."""
    num_ranks: int
    rejection: str | None = None
    """Why the policy's result was not used."""
    num_nodes: int = 1
    seconds: float = 0.0
    """How long the policy took."""
    proposal: torch.Tensor | None = None
    """``[layers, physical]``: what was planned, where that is only told and ``old`` stays."""

    @cached_property
    def slots_changed(self) -> list[int]:
        """The number of slots in each layer that get another logical expert."""
        return count_changed_slots(self.old, self.new)


GuardPhase = Literal["planning", "agreeing", "waiting for ranks"]


class Policy(Protocol):
    """A policy is what vLLM calls one: it plans a placement from a load."""

    def rebalance_experts(
        self,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: torch.Tensor | None = None,
    ) -> Any: ...


@dataclass(frozen=True)
class GuardedPolicy:
    """This stands where vLLM calls its policy; every rank accepts what it returns.

    The policy may return p2l alone or the three tensors of vLLM 0.18 (p2l, l2p, replica count);
    the last two are ignored. If the result breaks a rule on any rank, or differs between ranks,
    the placement in force is returned everywhere, so that nothing moves and serving goes on.
    """

    policy: Policy
    group: Callable[[], ProcessGroup]
    """Gives the gloo group of the calling thread: all EP ranks call together."""
    on_plan: Callable[[Plan], None]
    allow_empty_slots: bool = False
    """Whether -1 is a legal entry, as it is under elastic EP."""
    asks_again: bool = False
    """Whether the policy is asked a second time, with the same load and its own placement in force,
    and has to answer with the same: where it does not, it plans from another placement than the one
    it is given."""
    within_limit: Callable[[Callable[[], torch.Tensor]], torch.Tensor] = lambda ask: ask()
    """Asks the policy, and raises if it takes too long."""
    says: Callable[[GuardPhase], None] = lambda phase: None
    """Told what goes on."""
    only_plans: bool = False
    """Whether the placement in force stays whatever is planned, on all ranks alike."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def rebalance_experts(
        self,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: torch.Tensor | None = None,
    ) -> Any:
        """Ask the policy and check its answer.

        Args:
            weight: ``[layers, logical]``, tokens of each logical expert.
            num_replicas: Physical experts of the new placement.
            num_groups: Expert groups of the model.
            num_nodes: Nodes; experts of a group stay on one where that is possible.
            num_ranks: EP ranks of the new placement.
            old_global_expert_indices: ``[layers, physical]``, the placement in force.

        Returns:
            ``[layers, num_replicas]`` int64 on the CPU.

        Raises:
            InvalidPlacementError: The answer is invalid and the number of slots changes (elastic
                EP), so that the placement in force cannot stay.
        """
        if getattr(_guarded, "now", False):  # a guarded policy that a policy asks
            return self.policy.rebalance_experts(
                weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices
            )
        shape = (weight.shape[0], num_replicas)
        old = old_global_expert_indices
        # On a CPU device this is the map that the commit will overwrite.
        in_force = None if old is None else old.cpu().long().clone()
        proposal, rejection, seconds = torch.empty(0, dtype=torch.long), None, 0.0
        self.says("planning")
        started = time.perf_counter()
        try:
            question = (weight, num_replicas, num_groups, num_nodes, num_ranks)
            answer = self.within_limit(lambda: self._ask_once(old, *question))
            seconds = time.perf_counter() - started
            validate_placement(answer, shape, weight.shape[1], self.allow_empty_slots)
            proposal = answer.long().contiguous()
            if self.asks_again and old is not None:
                again = functools.partial(self._ask_once, proposal.clone(), *question)
                _must_be_the_same(proposal, self.within_limit(again))
        except Exception as error:  # a policy is foreign code: however it fails is its verdict
            rejection = f"{type(error).__name__}: {error}"
        self.says("agreeing")
        rejection = self._agree(proposal, rejection)
        told = proposal if self.only_plans and rejection is None else None
        if rejection is None and told is None:
            new = proposal
        elif in_force is not None and tuple(in_force.shape) == shape:
            new = in_force
        else:
            raise InvalidPlacementError(
                f"{rejection}; the old placement cannot stay, because the number of slots changes"
            )
        old_placement = new if in_force is None else in_force
        self.on_plan(
            Plan(weight.cpu(), old_placement, new, num_ranks, rejection, num_nodes, seconds, told)
        )
        self.says("waiting for ranks")
        return new

    def _ask_once(self, *question: Any) -> torch.Tensor:
        """Ask the policy, of which no part is guarded a second time."""
        _guarded.now = True
        try:
            return self._ask(*question)
        finally:
            _guarded.now = False

    def _ask(
        self,
        old: torch.Tensor | None,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
    ) -> torch.Tensor:
        answer = self.policy.rebalance_experts(
            weight, num_replicas, num_groups, num_nodes, num_ranks, old
        )
        placement: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer
        return placement

    def _agree(self, proposal: torch.Tensor, rejection: str | None) -> str | None:
        """One all-reduce over (1 if valid, else minus the rank; hash; -hash): the minima tell
        whether all are the same, and a rank where it is not valid."""
        digest = hashlib.blake2b(proposal.numpy().tobytes(), digest_size=7).digest()
        number = int.from_bytes(digest, "big")
        group = self.group()
        valid = 1 if rejection is None else -group.rank()
        votes = torch.tensor([valid, number, -number])
        all_reduce(votes, op=ReduceOp.MIN, group=group)
        valid, lowest, negated_highest = votes.tolist()
        if valid <= 0:
            return rejection or f"EP rank {-valid} rejected its policy's result, see its log"
        if lowest != -negated_highest:
            return "the policy's result differs between ranks: it must depend on its arguments only"
        return None


def _must_be_the_same(plan: torch.Tensor, second: torch.Tensor) -> None:
    if moved := sum(count_changed_slots(plan, second.long())):
        raise InvalidPlacementError(
            "a second plan, from this placement and the same load, still moves experts into "
            f"{moved} slots: the policy does not plan from the placement in force"
        )
