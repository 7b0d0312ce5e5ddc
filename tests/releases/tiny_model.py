# SPDX-License-Identifier: Apache-2.0
"""A model that is nothing but experts: what vLLM's EplbState needs of a `MixtureOfExperts`."""

from typing import Any

import torch
from vllm.distributed.eplb.eplb_state import EplbLayerState
from vllm.model_executor.models.interfaces import MixtureOfExperts


class TinyLayer:
    """One MoE layer; the weights of an expert are numbers that name the layer and the expert."""

    def __init__(self, placement: list[int], layer: int, tag: int) -> None:
        self.eplb_state = EplbLayerState()
        self.weights = (
            expert_weights(tag, layer, placement, 6),
            expert_weights(tag, layer, placement, 4).half(),
        )

    def get_expert_weights(self) -> tuple[torch.Tensor, ...]:
        return self.weights

    def set_eplb_state(self, moe_layer_idx: int, **tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            setattr(self.eplb_state, name, tensor[moe_layer_idx])


class TinyModel(MixtureOfExperts):
    """The experts of one EP rank."""

    def __init__(
        self, rank: int, num_ranks: int, layers: int, logical: int, redundant: int, tag: int
    ) -> None:
        self.num_moe_layers, self.num_expert_groups = layers, 1
        self.num_logical_experts = self.num_routed_experts = logical
        self.num_redundant_experts, self.num_shared_experts = redundant, 0
        self.num_physical_experts = logical + redundant
        self.num_local_physical_experts = self.num_physical_experts // num_ranks
        self.tag, self.is_drafter = tag, False
        self.expert_weights = []
        first = rank * self.num_local_physical_experts
        placement = [slot % logical for slot in range(self.num_physical_experts)]
        local = placement[first : first + self.num_local_physical_experts]
        self.moe_layers: Any = [TinyLayer(local, layer, tag) for layer in range(layers)]

    def wrong_slots(self, physical_to_logical_map: torch.Tensor, rank: int) -> list[int]:
        """Layers with a local slot that does not hold its logical expert's weights."""
        size = self.num_local_physical_experts
        placement = physical_to_logical_map[:, rank * size : (rank + 1) * size]
        if placement.shape[1] == 0:  # elastic EP takes this rank away
            return []
        wrong = []
        for index, (layer, local) in enumerate(zip(self.moe_layers, placement, strict=True)):
            used = local >= 0
            expected = TinyLayer(local[used].tolist(), index, self.tag).weights
            held = [tensor[used] for tensor in layer.weights]
            if not all(map(torch.equal, held, expected)):
                wrong.append(index)
        return wrong

    def forget_redundant(self, rank: int) -> None:
        """Clear the slots that hold no expert yet when elastic EP adds their rank."""
        for layer in self.moe_layers:
            for tensor in layer.weights:
                first = rank * self.num_local_physical_experts
                tensor[max(0, self.num_logical_experts - first) :] = 0


def expert_weights(tag: int, layer: int, experts: list[int], size: int) -> torch.Tensor:
    """``[experts, size]``: exact in half precision, different for every expert."""
    names = (tag * 8 + layer) * 64 + torch.tensor(experts, dtype=torch.float32)
    return torch.arange(size, dtype=torch.float32) / 8 + names.unsqueeze(1)
