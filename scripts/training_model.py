# SPDX-License-Identifier: Apache-2.0
"""A model while it is trained: transformers' DeepSeek-V2 with experts run in one of two ways."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.nn.functional import linear
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

Experts = Literal["dense", "grouped"]


def dense_experts(
    experts: Any, hidden: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Run every expert on every token, with weight 0 where the router did not choose it.

    Two matrix products instead of two for each expert: on a GPU faster for small experts, and
    deterministic, which gathering and scattering tokens is not.

    Args:
        experts: ``DeepseekV2Experts``.
        hidden: ``[tokens, hidden]``.
        indices: ``[tokens, chosen experts]``.
        weights: ``[tokens, chosen experts]``.
    """
    by_expert = torch.zeros(len(hidden), experts.num_experts, device=hidden.device)
    by_expert = by_expert.scatter(1, indices, weights)
    gate, up = (
        (hidden @ experts.gate_up_proj.flatten(0, 1).T)
        .view(len(hidden), experts.num_experts, 2, -1)
        .unbind(2)
    )
    inner = experts.act_fn(gate) * up * by_expert.to(gate.dtype).unsqueeze(-1)
    return (inner.flatten(1) @ experts.down_proj.transpose(1, 2).flatten(0, 1)).to(hidden.dtype)


def grouped_experts(
    experts: Any, hidden: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Run each expert on the tokens that chose it: what a CPU does, where products are the cost.

    The arguments are those of `dense_experts`.
    """
    copies = indices.shape[1]
    by_expert = indices.flatten().argsort(stable=True)
    counts = torch.bincount(indices.flatten(), minlength=experts.num_experts).tolist()
    tokens = by_expert // copies
    outputs = []
    for rows, shares, gate_up, down in zip(
        hidden.index_select(0, tokens).split(counts),
        weights.flatten().index_select(0, by_expert).unsqueeze(1).split(counts),
        # The gradient of all slices is then put together once, not added up expert by expert.
        experts.gate_up_proj.unbind(),
        experts.down_proj.unbind(),
        strict=True,
    ):
        gate, up = linear(rows, gate_up).chunk(2, dim=-1)
        outputs.append(linear(experts.act_fn(gate) * up * shares, down))
    chosen = torch.cat(outputs).to(hidden.dtype)
    return torch.zeros_like(hidden).index_add(0, tokens, chosen)


ALL_EXPERTS_FUNCTIONS.register("dense", dense_experts)
ALL_EXPERTS_FUNCTIONS.register("grouped", grouped_experts)


def build_model(
    values: Mapping[str, Any], seed: int, device: str, experts: Experts = "dense"
) -> Any:
    """A model with fresh weights, float32.

    Args:
        values: As in `config.json`.
        seed: Of the weights.
        device: Where they go after they were drawn.
        experts: How they are run.
    """
    config = DeepseekV2Config(**values)
    # Deterministic, and the only one for heads whose keys and values differ in size.
    config._attn_implementation = "eager"
    config._experts_implementation = experts
    torch.manual_seed(seed)
    return DeepseekV2ForCausalLM(config).float().to(device)


def hub_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights in bfloat16 under the names of the hub's checkpoints, one tensor an expert."""
    tensors = {}
    for name, tensor in state.items():
        layer, found, kind = name.partition(".mlp.experts.")
        if not found:
            tensors[name] = tensor
            continue
        for expert, weight in enumerate(tensor):
            parts = weight.chunk(2) if kind == "gate_up_proj" else (weight,)
            kinds = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
            for part, one in zip(parts, kinds, strict=True):
                tensors[f"{layer}.mlp.experts.{expert}.{one}.weight"] = part
    return {name: one.to("cpu", torch.bfloat16).contiguous() for name, one in tensors.items()}
