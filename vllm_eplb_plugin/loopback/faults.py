# SPDX-License-Identifier: Apache-2.0
"""EPLB broken on purpose: a check that never fails proves nothing until one of these trips it."""

import functools
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.install import Override

_STATE = "vllm.distributed.eplb.eplb_state"


def _do_nothing(original: Callable[..., Any]) -> Callable[..., None]:
    # The same signature: what overrides the target later finds it as expected, already bound.
    @functools.wraps(original)
    def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    return nothing


def _weights_stay(name: str, signature: str, releases: str) -> Override:
    return Override(
        target=f"{_STATE}:{name}",
        signature=signature,
        replace=_do_nothing,
        fixes="Nothing: maps are committed, weights stay where they were.",
        delete_when="Never.",
        releases=releases,
    )


_REARRANGE = "rearrange_expert_weights_inplace"
_PLACEMENTS = "old_global_expert_indices, new_global_expert_indices, expert_weights"
_PROFILE = "is_profile=False, rank_mapping=None"

FAULTS = {
    "weights_not_moved": (
        _weights_stay(_REARRANGE, f"({_PLACEMENTS}, ep_group, {_PROFILE})", "<0.20"),
        _weights_stay(
            _REARRANGE, f"({_PLACEMENTS}, ep_group, communicator, {_PROFILE})", ">=0.20,<0.23"
        ),
        _weights_stay(
            _REARRANGE,
            f"({_PLACEMENTS}, expert_buffer, ep_group, communicator, {_PROFILE})",
            ">=0.23",
        ),
        _weights_stay(
            "move_from_buffer",
            "(expert_weights, expert_weights_buffers, is_unchanged, is_received_locally, "
            "recv_metadata, new_indices, ep_rank)",
            "<0.20",
        ),
        _weights_stay(
            "move_from_buffer",
            "(expert_weights, expert_weights_buffers, transfer_metadata, new_indices, ep_rank)",
            ">=0.20",
        ),
    )
}
