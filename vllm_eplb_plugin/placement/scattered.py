# SPDX-License-Identifier: Apache-2.0
"""A placement that is far from vLLM's first one."""

import torch


def scatter_experts(num_slots: int, num_logical_experts: int, num_ranks: int) -> torch.Tensor:
    """Deal logical experts to ranks one by one, beginning with the second rank.

    A rank then holds what no other rank holds, so to reach vLLM's first placement from this one
    every rank has to send and to receive. An expert gets no more than redundant experts + 1 slots.

    Args:
        num_slots: Physical experts of all ranks; ``num_ranks`` divides it.
        num_logical_experts: At least as many as ranks, at most as many as slots.
        num_ranks: EP ranks.

    Returns:
        One layer's p2l, ``[physical]`` int64.
    """
    slots = torch.arange(num_slots // num_ranks)
    rows = []
    for rank in range(num_ranks):
        dealt = torch.arange((rank + 1) % num_ranks, num_logical_experts, num_ranks)
        rows.append(dealt[slots % len(dealt)])
    return torch.cat(rows)
