# SPDX-License-Identifier: Apache-2.0
"""Collectives of ranks that share a GPU: through pinned host memory, over gloo.

NCCL refuses two ranks on one device.
"""

from collections.abc import Sequence

import torch
from torch.distributed import ProcessGroup, all_gather_into_tensor, all_reduce

from vllm_eplb_plugin.loopback.refusals import LoopbackError


def gather_rows(
    tensors: Sequence[torch.Tensor], sizes: Sequence[int], group: ProcessGroup
) -> list[torch.Tensor]:
    """Concatenate every rank's rows of several tensors, in one collective.

    Args:
        tensors: Each ``[sizes[rank], ...]``, of any dtype, on one device.
        sizes: Rows of each rank.
        group: A gloo group; all its ranks call together.

    Returns:
        Each as ``[sum(sizes), ...]`` on its device.

    Raises:
        LoopbackError: A tensor has another number of rows than this rank.
    """
    device, own = tensors[0].device, sizes[group.rank()]
    for tensor in tensors:
        if len(tensor) != own:
            raise LoopbackError(
                f"loopback gathers {own} tokens of this rank, and {len(tensor)} rows go with them, "
                "as where activations are quantized with one scale a rank. vLLM's own all-gather "
                "takes that only where all ranks have as many tokens: serve the model unquantized, "
                "or quantized by token (--quantization fp8_per_channel) or by block (fp8_per_block)"
            )
    # Bytes, because gloo does not move every dtype, and one copy costs less than one a tensor.
    rows = [_as_bytes(tensor) for tensor in tensors]
    widths = [one.shape[1] for one in rows]
    most = max(sizes)
    sent = _host_memory((most, sum(widths)), torch.uint8, device)
    sent[: rows[0].shape[0]].copy_(torch.cat(rows, dim=1), non_blocking=True)
    received = _host_memory((len(sizes) * most, sum(widths)), torch.uint8, device)
    _wait_for(device)
    all_gather_into_tensor(received, sent, group=group)
    padded = torch.split(received.to(device, non_blocking=True), most)
    whole = torch.cat([rank[:size] for rank, size in zip(padded, sizes, strict=True)])
    parts = torch.split(whole, widths, dim=1)
    return [_from_bytes(part, tensor) for part, tensor in zip(parts, tensors, strict=True)]


def sum_over_ranks(tensor: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """Add up every rank's tensor; 16-bit floats in float32, and rounded once.

    Args:
        tensor: ``[...]``, the same shape on every rank.
        group: A gloo group; all its ranks call together.

    Returns:
        ``[...]`` on the tensor's device, in its dtype.
    """
    wide = torch.float32 if tensor.is_floating_point() and tensor.itemsize < 4 else tensor.dtype
    total = _host_memory(tensor.shape, wide, tensor.device)
    total.copy_(tensor.to(wide), non_blocking=True)
    _wait_for(tensor.device)
    all_reduce(total, group=group)
    return total.to(tensor.device, non_blocking=True).to(tensor.dtype)


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    rows = tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
    return rows.contiguous().view(torch.uint8)


def _from_bytes(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    # A new tensor: columns of a whole one need not start where the dtype may.
    apart = rows.clone(memory_format=torch.contiguous_format)
    return apart.view(like.dtype).reshape(rows.shape[0], *like.shape[1:])


def _host_memory(
    shape: Sequence[int], dtype: torch.dtype, for_device: torch.device
) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=for_device.type == "cuda")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
