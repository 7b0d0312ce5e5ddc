# SPDX-License-Identifier: Apache-2.0
"""The faults of a placement that is no longer in force: one late, in transfers or in plans."""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import torch

from vllm_eplb_plugin.faults.transfer_delay import TRANSFER_SIGNATURES
from vllm_eplb_plugin.faults.weights import rearrange_overrides
from vllm_eplb_plugin.overrides.override import Override

_Function = Callable[..., Any]


class OneLate:
    """Placements as somebody sees them who is always one behind."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, of: Hashable, placement: torch.Tensor) -> torch.Tensor:
        """Return the placement that was in force before this one; at first, this one.

        Args:
            of: What it is the placement of.
            placement: In force. It is copied, because a commit on a CPU writes over it.
        """
        now = placement.clone()
        before, latest = self._seen.get(of, (now, now))
        if not torch.equal(latest, now):
            before = latest
        self._seen[of] = before, now
        return before


def _with_stale_sources(old: str, original: _Function) -> _Function:
    """Give it, as the placement whose slots it reads, the one before; ``old`` is its parameter."""
    signature, one_late = inspect.signature(original), OneLate()

    @functools.wraps(original)
    def move(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        weights = call.arguments["expert_weights"]
        if not call.arguments["is_profile"]:
            # Of a model, or of a layer: whose first tensor is where it is for ever.
            first = weights[0] if isinstance(weights[0], torch.Tensor) else weights[0][0]
            call.arguments[old] = one_late(first.data_ptr(), call.arguments[old])
        return original(*call.args, **call.kwargs)

    return move


def _with_stale_plan(original: _Function) -> _Function:
    one_late = OneLate()

    @functools.wraps(original)
    def ask(self: Any, old: torch.Tensor | None, *others: Any) -> Any:
        # Models of other shapes have placements of their own.
        return original(self, None if old is None else one_late(old.shape, old), *others)

    return ask


_READS_OLD = "Slots are read as they were before the last rearrangement, when they held others."

STALE_SOURCES = (
    *rearrange_overrides(
        functools.partial(_with_stale_sources, "old_global_expert_indices"), _READS_OLD
    ),
    *(
        Override(
            target="vllm.distributed.eplb.async_worker:transfer_layer",
            signature=signature,
            kind="break",
            replace=functools.partial(_with_stale_sources, "old_layer_indices"),
            fixes=_READS_OLD,
            delete_when="Never.",
            releases=releases,
        )
        for releases, signature in TRANSFER_SIGNATURES.items()
    ),
)

STALE_PLAN = (
    Override(
        target="vllm_eplb_plugin.planning.guard:GuardedPolicy._ask",
        signature="(self, old, weight, num_replicas, num_groups, num_nodes, num_ranks)",
        kind="break",
        replace=_with_stale_plan,
        fixes="The policy starts from the placement before the one in force.",
        delete_when="Never.",
    ),
)
