# SPDX-License-Identifier: Apache-2.0
"""What vLLM's GPU kernels do with expert ids and its CPU path leaves out, in plain torch."""

import torch

# floor(2^32 / golden ratio): the multiplicative hash that vLLM's router kernel uses since 0.20.
_HASH_MULTIPLIER = 2654435769


def keep_local_experts(
    topk_ids: torch.Tensor, topk_weights: torch.Tensor, expert_map: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn global slots into local ones; those of other ranks become idle slots with weight 0.

    A token names each local slot once at most, if there are as many as its choices: vLLM 0.18
    counts a slot that a token names twice as one (``cpu_fused_moe_torch``, which it takes with AMX
    or without AVX-512).

    Args:
        topk_ids: ``[tokens, top_k]``, global slots, each token's all different.
        topk_weights: ``[tokens, top_k]``.
        expert_map: ``[physical]``, the local slot or -1.

    Returns:
        Ids int32 and weights, both contiguous.
    """
    local = expert_map[topk_ids.long()].long()
    elsewhere = local < 0
    slots = int(expert_map.max()) + 1
    used = torch.zeros((len(local), slots + 1), dtype=torch.bool, device=local.device)
    used.scatter_(1, local.masked_fill(elsewhere, slots), True)
    idle_first = used[:, :slots].byte().argsort(dim=1, stable=True)
    number = (elsewhere.cumsum(dim=1) - 1).clamp(min=0) % slots
    ids = torch.where(elsewhere, idle_first.gather(1, number), local).to(torch.int32)
    return ids.contiguous(), topk_weights.masked_fill(elsewhere, 0.0).contiguous()


def map_to_physical_and_record(
    topk_ids: torch.Tensor,
    expert_load_view: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
    record_enabled: torch.Tensor,
    num_unpadded_tokens: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose a replica for every token's experts and count it, as vLLM's Triton kernel does.

    Args:
        topk_ids: ``[tokens, top_k]``, logical experts.
        expert_load_view: ``[physical]`` int32, tokens counted in place.
        logical_to_physical_map: ``[logical, width]``.
        logical_replica_count: ``[logical]``.
        record_enabled: Scalar; False: nothing is counted.
        num_unpadded_tokens: Scalar; tokens from here on are padding, mapped but not counted.

    Returns:
        ``[tokens, top_k]``, global slots in the dtype of ``topk_ids``.
    """
    experts = topk_ids.long()
    tokens = torch.arange(experts.shape[0], device=experts.device).unsqueeze(1)
    hashed = (tokens * _HASH_MULTIPLIER) & 0xFFFFFFFF
    replicas = hashed % logical_replica_count[experts].clamp(min=1)
    physical = logical_to_physical_map[experts, replicas]
    if record_enabled:
        end = None if num_unpadded_tokens is None else int(num_unpadded_tokens)
        counted = physical[:end].flatten()
        counted = counted[counted >= 0].long()
        expert_load_view.index_add_(0, counted, torch.ones_like(counted, dtype=torch.int32))
    return physical.to(topk_ids.dtype)
