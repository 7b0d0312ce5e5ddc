# SPDX-License-Identifier: Apache-2.0
"""Collectives over ranks with different numbers of tokens, which gloo does not have."""

import torch
from torch.distributed import ProcessGroup, all_gather_into_tensor, all_reduce


def all_gather_uneven(tensor: torch.Tensor, sizes: list[int], group: ProcessGroup) -> torch.Tensor:
    """Concatenate every rank's rows.

    Args:
        tensor: ``[sizes[rank], ...]``.
        sizes: Rows of each rank.
        group: A gloo group; all its ranks call together.

    Returns:
        ``[sum(sizes), ...]``.
    """
    most = max(sizes)
    padded = tensor.new_zeros((most, *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    gathered = tensor.new_empty((len(sizes) * most, *tensor.shape[1:]))
    all_gather_into_tensor(gathered, padded, group=group)
    ranks = torch.split(gathered, most)
    return torch.cat([rows[:size] for rows, size in zip(ranks, sizes, strict=True)])


def reduce_scatter_uneven(
    tensor: torch.Tensor, sizes: list[int], rank: int, group: ProcessGroup
) -> torch.Tensor:
    """Sum over ranks and keep this rank's rows.

    Args:
        tensor: ``[sum(sizes), ...]``.
        sizes: Rows of each rank.
        rank: This rank in the group.
        group: A gloo group; all its ranks call together.

    Returns:
        ``[sizes[rank], ...]``.
    """
    total = tensor.clone()
    all_reduce(total, group=group)
    return torch.split(total, sizes)[rank].contiguous()
