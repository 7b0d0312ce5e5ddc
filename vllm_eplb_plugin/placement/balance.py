# SPDX-License-Identifier: Apache-2.0
"""What a placement means for the work of each EP rank, and what it costs to reach."""

import torch

from vllm_eplb_plugin.placement.maps import count_replicas


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
    filled = physical_to_logical_map >= 0
    experts = physical_to_logical_map.long().clamp(min=0)
    replicas = count_replicas(physical_to_logical_map, logical_load.shape[1]).clamp(min=1)
    share = (logical_load.double() / replicas).gather(1, experts) * filled
    return share.reshape(share.shape[0], num_ranks, -1).sum(dim=2)


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
        ranks = [slice(rank * size, (rank + 1) * size) for rank in range(num_ranks)]
        received.append(sum(len(set(new_layer[r]) - {*old_layer[r], -1}) for r in ranks))
    return received
