# SPDX-License-Identifier: Apache-2.0
"""Numbers that tell one expert's weights from another's."""

import math
from collections.abc import Sequence

import torch

# Odd, so that changing any one word always changes the sum; from the golden ratio, as splitmix64.
_MULTIPLIER = -7046029254386353131

_WORD = 8
_BYTES_AT_ONCE = 64 * 2**20
_PART_OF_LARGEST = 4


def digest_parts(
    weights: Sequence[torch.Tensor], slots: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute two numbers for each slot: of the weights proper, and of all that is small.

    Each is equal only if every byte of its tensors is, in effect. Beside weights a layer has
    scales, and what quantisation leaves there: indices that nobody reads and nothing fills
    (``w13_weight_g_idx`` of vLLM's `CompressedTensorsWNA16MoEMethod`), and numbers that follow from
    all experts of a rank (``g1_alphas`` of FP8 with static scales, before vLLM reduced them over
    ranks). So replicas of one expert can be loaded right, and differ in what is small.

    Args:
        weights: The layer's weight tensors, each ``[slots, ...]``, of any dtype.
        slots: ``[n]``, which of them; None: all.

    Returns:
        ``[n, 2]`` int64 on the CPU. The host waits for the device.
    """
    largest = max(tensor[0].nbytes for tensor in weights)
    parts: tuple[list[torch.Tensor], ...] = ([], [])
    for tensor in weights:
        parts[tensor[0].nbytes * _PART_OF_LARGEST < largest].append(tensor)
    count = len(weights[0]) if slots is None else len(slots)
    digests = torch.zeros(count, len(parts), dtype=torch.long)
    for column, tensors in zip(digests.T, parts, strict=True):
        for tensor in tensors:
            column.mul_(_MULTIPLIER).add_(_digest_tensor(tensor, slots))
    return digests


def join_parts(parts: torch.Tensor) -> torch.Tensor:
    """Make one number ``[...]`` of the two ``[..., 2]``."""
    return parts[..., 0] * _MULTIPLIER + parts[..., 1]


def _digest_tensor(tensor: torch.Tensor, slots: torch.Tensor | None = None) -> torch.Tensor:
    rows = tensor.detach().reshape(len(tensor), math.prod(tensor.shape[1:]))
    if rows.stride(1) != 1:
        rows = rows.clone(memory_format=torch.contiguous_format)
    rows = rows.view(torch.uint8)
    count, words = len(rows) if slots is None else len(slots), -(-rows.shape[1] // _WORD)
    if words == 0:
        return torch.zeros(count, dtype=torch.long)
    position = (2 * torch.arange(words, device=rows.device) + 1) * _MULTIPLIER
    # The products of all slots at once would double the layer's memory.
    at_once = max(1, _BYTES_AT_ONCE // (words * _WORD))
    parts = range(0, count, at_once)
    wanted = rows if slots is None else slots.to(rows.device)
    some = (wanted[start : start + at_once] for start in parts)
    words_of = (_as_words(part if slots is None else rows.index_select(0, part)) for part in some)
    return torch.cat([(part * position).sum(1) for part in words_of]).cpu()


def _as_words(rows: torch.Tensor) -> torch.Tensor:
    where = (rows.shape[1], rows.stride(0), rows.storage_offset())
    if any(number % _WORD for number in where):
        rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % _WORD))
        rows = rows.clone(memory_format=torch.contiguous_format)
    return rows.view(torch.long)
