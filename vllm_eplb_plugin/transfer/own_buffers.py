# SPDX-License-Identifier: Apache-2.0
"""Overrides that let each MoE layer receive its experts into buffers that fit them."""

import functools
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.transfer import peer_layer, surviving, unchanged_layers
from vllm_eplb_plugin.transfer.layer_weights import buffers_of

_EPLB = "vllm.distributed.eplb"
_FIXES = (
    "Buffers are like the first MoE layer's tensors: where a later layer has others, its experts "
    "get wrong weights, or ranks wait for each other for ever."
)
_DELETE_WHEN = "vLLM receives every layer into buffers of its own, or refuses layers that differ."

_LAYER = "(num_local_experts, old_indices, new_indices, expert_weights, expert_weights_buffers, "
_TO_BUFFER = {
    ">=0.20,<0.23": "cuda_stream, ep_rank, communicator)",
    ">=0.23,<0.31": "cuda_stream, ep_rank, communicator, layer_idx=0)",
    ">=0.31,<0.32": "stream, ep_rank, communicator, layer_idx=0)",
    ">=0.32": "stream, ep_rank, communicator, layer_idx=0, enable_migration_batching=False, "
    "migration_batches=None)",
}


def in_own_buffers(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the layer's own buffers to a function of vLLM that is called with keywords only."""

    @functools.wraps(original)
    def call(*, expert_weights: Any, expert_weights_buffers: Any, **others: Any) -> Any:
        buffers = buffers_of(expert_weights, expert_weights_buffers)
        return original(expert_weights=expert_weights, expert_weights_buffers=buffers, **others)

    return call


def _override_move_to_buffer(original: Callable[..., Any]) -> Callable[..., Any]:
    pull_or_send = peer_layer.pull_from_peers(in_own_buffers(original))
    return surviving.survive(unchanged_layers.unless_unchanged(pull_or_send))


OVERRIDES = (
    *(
        Override(
            target=f"{_EPLB}.rebalance_execute:move_to_buffer",
            signature=_LAYER + rest,
            kind="replace",
            replace=_override_move_to_buffer,
            fixes=f"{_FIXES} {unchanged_layers.FIXES} {peer_layer.FIXES} {surviving.FIXES}",
            delete_when=f"{_DELETE_WHEN} And it leaves out layers that do not change, and reads "
            "weights of ranks on the same host from their memory.",
            releases=releases,
        )
        for releases, rest in _TO_BUFFER.items()
    ),
    *(
        Override(
            target=f"{_EPLB}.{module}:move_from_buffer",
            signature="(expert_weights, expert_weights_buffers, is_unchanged, "
            "is_received_locally, recv_metadata, new_indices, ep_rank)",
            kind="replace",
            replace=in_own_buffers,
            fixes=_FIXES,
            delete_when=_DELETE_WHEN,
            releases="<0.20",
        )
        for module in ("eplb_state", "rebalance_execute")
    ),
)
