# SPDX-License-Identifier: Apache-2.0
"""A model that is nothing but experts: what vLLM's EplbState needs of a `MixtureOfExperts`."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from vllm.distributed.eplb.eplb_state import EplbLayerState
from vllm.model_executor.models.interfaces import MixtureOfExperts

TensorSpec = tuple[str, list[int]]
"""A dtype, and the shape of one expert's tensor."""

USUAL: list[TensorSpec] = [("float32", [6]), ("float16", [4])]


class TinyLayer:
    """One MoE layer; the weights of an expert are numbers that name the layer and the expert."""

    def __init__(
        self, placement: list[int], layer: int, tag: int, spec: Sequence[TensorSpec] = USUAL
    ) -> None:
        self.eplb_state = EplbLayerState()
        self.lazy = False
        """Whether vLLM gets a generator, which can be read once."""
        self.weights: tuple[torch.Tensor, ...] = tuple(
            expert_weights(tag, layer, placement, shape, getattr(torch, dtype))
            for dtype, shape in spec
        )

    def get_expert_weights(self) -> Sequence[torch.Tensor] | Iterator[torch.Tensor]:
        return iter(self.weights) if self.lazy else self.weights

    def set_eplb_state(self, moe_layer_idx: int, **tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            setattr(self.eplb_state, name, tensor[moe_layer_idx])


class TinyModel(MixtureOfExperts):
    """The experts of one EP rank."""

    def __init__(
        self,
        rank: int,
        num_ranks: int,
        layers: int,
        logical: int,
        redundant: int,
        tag: int,
        specs: Sequence[Sequence[TensorSpec]] | None = None,
    ) -> None:
        self.specs = [USUAL] * layers if specs is None else specs
        """Of each layer's tensors."""
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
        self.moe_layers: Any = [
            TinyLayer(local, layer, tag, spec) for layer, spec in enumerate(self.specs)
        ]

    def wrong_slots(self, physical_to_logical_map: torch.Tensor, rank: int) -> list[int]:
        """Layers with a local slot that does not hold its logical expert's weights."""
        size = self.num_local_physical_experts
        placement = physical_to_logical_map[:, rank * size : (rank + 1) * size]
        if placement.shape[1] == 0:  # elastic EP takes this rank away
            return []
        wrong = []
        for index, (layer, local) in enumerate(zip(self.moe_layers, placement, strict=True)):
            used = local >= 0
            expected = TinyLayer(local[used].tolist(), index, self.tag, self.specs[index]).weights
            held = [slot_bytes(tensor)[used] for tensor in layer.weights]
            if not all(map(torch.equal, held, map(slot_bytes, expected))):
                wrong.append(index)
        return wrong

    def forget_redundant(self, rank: int) -> None:
        """Clear the slots that hold no expert yet when elastic EP adds their rank."""
        for layer in self.moe_layers:
            for tensor in layer.weights:
                first = rank * self.num_local_physical_experts
                slot_bytes(tensor)[max(0, self.num_logical_experts - first) :] = 0


def expert_weights(
    tag: int, layer: int, experts: list[int], shape: list[int], dtype: torch.dtype
) -> torch.Tensor:
    """``[experts, *shape]``, different for every expert in each of its bytes.

    A number of 16 bits or more that is no integer is exact, so that it could be computed with.
    """
    names = (tag * 8 + layer) * 64 + torch.tensor(experts, dtype=torch.float32)
    if dtype.is_floating_point and dtype.itemsize > 1:
        size = math.prod(shape)
        values = torch.arange(size, dtype=torch.float32) / 8 + names.unsqueeze(1)
        return values.to(dtype).reshape(len(experts), *shape)
    size = math.prod(shape) * dtype.itemsize
    values = torch.arange(size) * 7 + names.long().unsqueeze(1)
    return (values % 251).to(torch.uint8).view(dtype).reshape(len(experts), *shape)


def slot_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """``[slots, bytes]`` of a contiguous tensor, over its memory."""
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:])).view(torch.uint8)
