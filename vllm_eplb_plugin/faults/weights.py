# SPDX-License-Identifier: Apache-2.0
"""The faults of moving weights: they break what vLLM calls before it commits a placement."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from vllm_eplb_plugin.overrides.override import Override

_Function = Callable[..., Any]

_STATE = "vllm.distributed.eplb.eplb_state"

_PLACEMENTS = "old_global_expert_indices, new_global_expert_indices, expert_weights"
_PROFILE = "is_profile=False, rank_mapping=None"
# Sync: all layers at once.
_REARRANGE = "rearrange_expert_weights_inplace"
_REARRANGE_SIGNATURES = {
    "<0.20": f"({_PLACEMENTS}, ep_group, {_PROFILE})",
    ">=0.20,<0.23": f"({_PLACEMENTS}, ep_group, communicator, {_PROFILE})",
    ">=0.23": f"({_PLACEMENTS}, expert_buffer, ep_group, communicator, {_PROFILE})",
}
# Async: one layer, from the buffer that the async worker filled.
_MOVE = "move_from_buffer"
_MOVE_SIGNATURES = {
    "<0.20": "(expert_weights, expert_weights_buffers, is_unchanged, is_received_locally, "
    "recv_metadata, new_indices, ep_rank)",
    ">=0.20": "(expert_weights, expert_weights_buffers, transfer_metadata, new_indices, ep_rank)",
}


def _do_nothing(original: _Function) -> _Function:
    @functools.wraps(original)
    def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    return nothing


def swap_two_experts(
    weights: Sequence[torch.Tensor], placement: Sequence[int], rank: int
) -> tuple[int, int] | None:
    """Exchange the weights of two logical experts of one layer, in place.

    Args:
        weights: The layer's weight tensors on this rank, each ``[local physical, ...]``.
        placement: ``[physical]``, the layer's p2l.
        rank: EP rank.

    Returns:
        The two experts. Both have their only replica here, so nowhere are their right weights
        left. None without two such experts: nothing was exchanged.
    """
    slots = weights[0].shape[0]
    local = placement[rank * slots : (rank + 1) * slots]
    single = [slot for slot, expert in enumerate(local) if list(placement).count(expert) == 1]
    if len(single) < 2:
        return None
    pair, exchanged = single[:2], single[1::-1]
    for tensor in weights:
        tensor[pair] = tensor[exchanged]
    return local[pair[0]], local[pair[1]]


def _swap_once_in_all_layers(original: _Function) -> _Function:
    signature = inspect.signature(original)
    swapped = None

    @functools.wraps(original)
    def rearrange(*args: Any, **kwargs: Any) -> None:
        nonlocal swapped
        original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        rank = call.arguments["ep_group"].rank()
        if swapped is None and rank == 0 and not call.arguments["is_profile"]:
            placement = call.arguments["new_global_expert_indices"][0].tolist()
            swapped = swap_two_experts(call.arguments["expert_weights"][0], placement, rank)

    return rearrange


def _swap_once_in_a_layer(original: _Function) -> _Function:
    signature = inspect.signature(original)
    swapped = None

    @functools.wraps(original)
    def move(*args: Any, **kwargs: Any) -> None:
        nonlocal swapped
        original(*args, **kwargs)
        call = signature.bind(*args, **kwargs).arguments
        if swapped is None and call["ep_rank"] == 0:
            placement = call["new_indices"].tolist()
            swapped = swap_two_experts(call["expert_weights"], placement, 0)

    return move


def rearrange_overrides(
    replace: Callable[[_Function], _Function], effect: str
) -> Iterator[Override]:
    """Override what moves the weights of all layers in sync mode, on every release."""
    return _overrides(_REARRANGE, _REARRANGE_SIGNATURES, replace, effect)


def _of_moving_weights(
    in_all_layers: Callable[[_Function], _Function],
    in_a_layer: Callable[[_Function], _Function],
    effect: str,
) -> Iterator[Override]:
    yield from rearrange_overrides(in_all_layers, effect)
    yield from _overrides(_MOVE, _MOVE_SIGNATURES, in_a_layer, effect)


def _overrides(
    name: str,
    signatures: dict[str, str],
    replace: Callable[[_Function], _Function],
    effect: str,
) -> Iterator[Override]:
    for releases, signature in signatures.items():
        yield Override(
            target=f"{_STATE}:{name}",
            signature=signature,
            kind="break",
            replace=replace,
            fixes=effect,
            delete_when="Never.",
            releases=releases,
        )


WEIGHTS_NOT_MOVED = tuple(
    _of_moving_weights(
        _do_nothing, _do_nothing, "Maps are committed, weights stay where they were."
    )
)

EXPERT_ROW_SWAPPED = tuple(
    _of_moving_weights(
        _swap_once_in_all_layers,
        _swap_once_in_a_layer,
        "After the first rearrangement, in one layer, two logical experts have each other's "
        "weights, and keep them wherever they move.",
    )
)
