# SPDX-License-Identifier: Apache-2.0
"""EPLB broken on purpose: a check that never fails proves nothing until one of these trips it."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

from vllm_eplb_plugin.fault_settings import Fault
from vllm_eplb_plugin.faults.broken import BROKEN_OVERRIDES
from vllm_eplb_plugin.faults.stale import STALE_PLAN, STALE_SOURCES
from vllm_eplb_plugin.faults.weights import EXPERT_ROW_SWAPPED, WEIGHTS_NOT_MOVED
from vllm_eplb_plugin.overrides.override import Override

_Function = Callable[..., Any]


def _forget_an_expert(original: _Function) -> Any:
    signature = inspect.signature(original)

    def rebalance_experts(cls: type, *args: Any, **kwargs: Any) -> torch.Tensor:
        answer = original(*args, **kwargs)
        placement: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer
        return placement.where(placement != 0, 1)

    rebalance_experts.__signature__ = signature  # type: ignore[attr-defined]
    return classmethod(rebalance_experts)


def _leave_a_replica_out(original: _Function) -> _Function:
    """One too many would make the router read -1, and answers would tell. One too few costs no
    answer: a replica is never used, and only the maps themselves can tell."""

    @functools.wraps(original)
    def commit(model_state: Any, new: torch.Tensor, *layer: int) -> None:
        original(model_state, new, *layer)
        counts = model_state.logical_replica_count[layer]
        most = counts.argmax(dim=-1, keepdim=True)
        counts.scatter_add_(-1, most, torch.full_like(most, -1, dtype=counts.dtype))

    return commit


def _never(_: None) -> property:
    def get(self: Any) -> int:
        return sys.maxsize

    def put(self: Any, steps: int) -> None:
        return

    return property(get, put, doc="Steps between rearrangements: more than there will ever be.")


FAULTS: dict[Fault, tuple[Override, ...]] = {
    "weights_not_moved": WEIGHTS_NOT_MOVED,
    "expert_row_swapped": EXPERT_ROW_SWAPPED,
    "stale_sources": STALE_SOURCES,
    "replica_count_off_by_one": tuple(
        Override(
            target=f"vllm_eplb_plugin.engine.commit_points:{name}",
            signature=signature,
            kind="break",
            replace=_leave_a_replica_out,
            fixes="The expert with most replicas is said to have one less.",
            delete_when="Never.",
        )
        for name, signature in (
            ("commit_model", "(model_state, new)"),
            ("commit_layer", "(model_state, new, layer)"),
        )
    ),
    "invalid_placement": (
        Override(
            target="vllm.distributed.eplb.policy.default:DefaultEplbPolicy.rebalance_experts",
            signature="(weight, num_replicas, num_groups, num_nodes, num_ranks, "
            "old_global_expert_indices=None)",
            kind="break",
            replace=_forget_an_expert,
            fixes="Logical expert 0 gets no slot.",
            delete_when="Never.",
        ),
    ),
    "stale_plan": STALE_PLAN,
    "no_rearrangement": (
        Override(
            target="vllm.distributed.eplb.eplb_state:EplbState.expert_rearrangement_step_interval",
            signature=None,
            kind="break",
            replace=_never,
            fixes="No placement is ever asked for.",
            delete_when="Never.",
        ),
    ),
    **BROKEN_OVERRIDES,
}
"""What is bound for each value of the setting `fault`, in loopback workers, on every release."""
