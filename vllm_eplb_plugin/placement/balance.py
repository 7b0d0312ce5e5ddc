# SPDX-License-Identifier: Apache-2.0
"""What a placement means for the work of each EP rank, and what it costs to reach."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def rank_loads(
    logical_load: torch.Tensor, physical_to_logical_map: torch.Tensor, num_ranks: int
) -> torch.Tensor:
    """Compute each EP rank's expected tokens if replicas share their expert's load equally.

    Args:
        logical_load: ``[layers, logical]``, tokens of each logical expert.
        physical_to_logical_map: ``[layers, physical]``, -1 where a slot is empty.
        num_ranks: EP ranks; it divides ``physical``, slots lie rank after rank.

    Returns:
        ``[layers, ranks]`` float64.
    """
    layers = zip(logical_load.numpy(), physical_to_logical_map.numpy(), strict=True)
    return torch.from_numpy(np.stack([layer_rank_loads(*layer, num_ranks) for layer in layers]))


def layer_rank_loads(
    logical_load: NDArray[np.number], slots: NDArray[np.integer], num_ranks: int
) -> NDArray[np.float64]:
    """Compute the same for one layer.

    Args:
        logical_load: ``[logical]``.
        slots: ``[physical]``, -1 where a slot is empty.
        num_ranks: EP ranks.

    Returns:
        ``[ranks]``.
    """
    filled = slots >= 0
    experts = np.where(filled, slots, 0)
    replicas = np.bincount(experts[filled], minlength=len(logical_load)).clip(1)
    share: NDArray[np.float64] = (logical_load.astype(np.float64) / replicas)[experts] * filled
    loads: NDArray[np.float64] = share.reshape(num_ranks, -1).sum(axis=1)
    return loads


def balancedness(
    logical_load: torch.Tensor, physical_to_logical_map: torch.Tensor, num_ranks: int
) -> float:
    """Divide mean by max rank load, each summed over the layers, as vLLM does; 1.0 without load."""
    loads = rank_loads(logical_load, physical_to_logical_map, num_ranks)
    heaviest = float(loads.max(dim=1).values.sum())
    return float(loads.mean(dim=1).sum()) / heaviest if heaviest > 0 else 1.0


def count_received_experts(old: torch.Tensor, new: torch.Tensor, num_ranks: int) -> list[int]:
    """Count the experts of each layer that some rank must receive from another one.

    A rank receives an expert once, however many of its slots will hold it, and only if none of
    its slots holds it already: the plan of vLLM's ``move_to_buffer``.

    Args:
        old: ``[layers, physical]`` before.
        new: ``[layers, physical]`` after.
        num_ranks: EP ranks; it divides ``physical``.
    """
    received = []
    for old_layer, new_layer in zip(old.tolist(), new.tolist(), strict=True):
        size = len(new_layer) // num_ranks
        received.append(sum(map(len, received_by_rank(old_layer, new_layer, size))))
    return received


def received_by_rank(old: Sequence[int], new: Sequence[int], size: int) -> list[set[int]]:
    """Find what each rank receives in one layer, as `count_received_experts` has it.

    Args:
        old: ``[physical]`` before; where it is shorter, slots were added.
        new: ``[physical]`` after.
        size: Slots of a rank.
    """
    starts = range(0, len(new), size)
    return [set(new[at : at + size]) - {*old[at : at + size], -1} for at in starts]
