# SPDX-License-Identifier: Apache-2.0
"""Stands for vLLM's `EplbModelState` of a model that is not there."""

from types import SimpleNamespace
from typing import Any

import torch

from vllm_eplb_plugin.bench.shapes import Shape


def model_state(shape: Shape, width: int, device: torch.device) -> Any:
    """Make maps of a shape, all zeros, and as many experts without weights.

    Args:
        shape: Of the model.
        width: Columns of l2p.
        device: Of the maps.
    """
    experts = (shape.layers, shape.logical)
    return SimpleNamespace(
        model_name=shape.name,
        model=SimpleNamespace(
            num_moe_layers=shape.layers,
            num_logical_experts=shape.logical,
            num_expert_groups=shape.groups,
            expert_weights=[[torch.empty(1, 1)] for _ in range(shape.layers)],
        ),
        physical_to_logical_map=torch.zeros(
            (shape.layers, shape.slots), dtype=torch.long, device=device
        ),
        logical_to_physical_map=torch.zeros((*experts, width), dtype=torch.long, device=device),
        logical_replica_count=torch.zeros(experts, dtype=torch.long, device=device),
    )


def group_of(shape: Shape) -> Any:
    """Make what stands for the group of a shape's ranks, none of which is there."""
    return SimpleNamespace(size=lambda: shape.ranks)
