# SPDX-License-Identifier: Apache-2.0
"""Override of how a layer's received experts get from the transfer buffer into the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.transfer.layer_weights import buffers_of, is_bytes
from vllm_eplb_plugin.transfer.pulls import Pull, joined

_LARGE_BYTES = 2**20
"""Of a row: from here on a copy of its own is faster than its share of one kernel for all, which
moves a third of what the memory can (on an H200, 0.6 of 1.9 TB/s for rows of 6 and 12 MB)."""


def rows_to_copy(
    transfer: Any, new_indices: NDArray[np.integer], ep_rank: int
) -> list[tuple[int, int]]:
    """Find which rows of the buffer go into which slots of this rank.

    Args:
        transfer: vLLM's ``TransferMetadata`` of the layer.
        new_indices: ``[physical]``, the logical expert in each slot of all ranks.
        ep_rank: This rank.

    Returns:
        Pairs of a local slot and the buffer's row that holds its expert. An expert that several
        slots get arrives once, in the row of one of them.
    """
    size = transfer.is_unchanged.shape[0]
    experts = new_indices[ep_rank * size : (ep_rank + 1) * size].tolist()
    in_own_row = (transfer.is_received_locally | transfer.recv_primary_mask).tolist()
    arrived = transfer.recv_count
    row_of = dict(
        zip(
            transfer.recv_expert_ids[:arrived].tolist(),
            transfer.recv_dst_rows[:arrived].tolist(),
            strict=True,
        )
    )
    changed = np.flatnonzero(~transfer.is_unchanged).tolist()
    rows = ((slot, slot if in_own_row[slot] else row_of.get(experts[slot])) for slot in changed)
    return [(slot, row) for slot, row in rows if row is not None]


def _move_from_buffer(
    expert_weights: Sequence[torch.Tensor],
    expert_weights_buffers: list[torch.Tensor],
    transfer_metadata: Any,
    new_indices: NDArray[np.integer],
    ep_rank: int,
) -> None:
    pairs = rows_to_copy(transfer_metadata, new_indices, ep_rank)
    if not pairs:
        return
    runs = list(joined(Pull(ep_rank, row, slot, 1) for slot, row in pairs))
    buffers = buffers_of(expert_weights, expert_weights_buffers)
    for tensor, received in zip(expert_weights, buffers, strict=True):
        large = tensor[0].nbytes >= _LARGE_BYTES
        weights, buffer = (tensor, received) if large else in_words(tensor, received)
        targets = [weights[run.row : run.row + run.rows] for run in runs]
        sources = [buffer[run.source : run.source + run.rows] for run in runs]
        if large:
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source, non_blocking=True)
        else:
            torch._foreach_copy_(targets, sources, non_blocking=True)


def in_words(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """View bytes as the widest words that all of the tensors can be viewed as.

    A kernel that copies lists of tensors takes four elements at a time, however small they are.
    """
    for word in (torch.int64, torch.int32, torch.int16):
        if all(_consists_of(tensor, word.itemsize) for tensor in tensors):
            return tuple(tensor.view(word) for tensor in tensors)
    return tensors


def _consists_of(tensor: torch.Tensor, size: int) -> bool:
    if not is_bytes(tensor):
        return False
    where = (tensor.shape[1], tensor.stride(0), tensor.storage_offset())
    return all(number % size == 0 for number in where)


OVERRIDES = tuple(
    Override(
        # Both modes: async calls it from the one module, sync from the other.
        target=f"vllm.distributed.eplb.{module}:move_from_buffer",
        signature="(expert_weights, expert_weights_buffers, transfer_metadata, new_indices, "
        "ep_rank)",
        kind="replace",
        replace=lambda _: _move_from_buffer,
        fixes="One copy is launched for every slot and tensor, on the thread that runs the model: "
        "up to hundreds a layer.",
        delete_when="vLLM copies a layer's rows in a few launches.",
        releases=">=0.20",
    )
    for module in ("eplb_state", "rebalance_execute")
)
