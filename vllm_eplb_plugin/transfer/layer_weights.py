# SPDX-License-Identifier: Apache-2.0
"""The weights of one MoE layer's experts as bytes: what every communicator can carry.

vLLM sends whatever ``model.expert_weights`` holds, and what it receives goes into buffers made like
the first layer's. Bytes need no dtype that a communicator, or a later layer, does not have.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from vllm_eplb_plugin.transfer.peer_layer import PeerLayer
    from vllm_eplb_plugin.transfer.surviving import Carrier

_ALIGNMENT = 256
"""Of tensors in a buffer, in bytes: what a GPU's allocator gives."""


@dataclass(frozen=True)
class TensorKind:
    """What one tensor of a layer is; two of one kind can be received into the same buffer."""

    slots: int
    """Its first dimension; -1: it has none."""
    slot_bytes: int
    device: str
    """Its type: the number differs from rank to rank."""
    text: str
    """Dtype and shape of one slot, and its strides where they are not those of a contiguous one."""

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "TensorKind":
        """Describe a tensor."""
        slots = tensor.shape[0] if tensor.dim() else -1
        shape = list(tensor.shape[1:])
        text = f"{str(tensor.dtype).removeprefix('torch.')} {shape}"
        if tensor.dim() and not tensor[:1].is_contiguous():
            text += f" with strides {list(tensor.stride()[1:])}"
        return cls(slots, math.prod(shape) * tensor.element_size(), tensor.device.type, text)


class LayerWeights(list[torch.Tensor]):
    """A layer's tensors, ``[slots, bytes]`` each where they can be, over the model's own memory."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        """Take what ``get_expert_weights`` of a vLLM MoE layer returns."""
        given = list(tensors)
        super().__init__(map(byte_view, given))
        self.kinds: list[TensorKind] = [TensorKind.of(tensor) for tensor in given]
        """Of the tensors as the layer has them."""
        if isinstance(tensors, LayerWeights):
            self.kinds = tensors.kinds
        self.buffers: list[torch.Tensor] | None = None
        """Into which the layer's experts are received; None: into those that vLLM made."""
        self.peers: PeerLayer | None = None
        """From which ranks experts are pulled; None: all come through vLLM's communicator."""
        self.number = -1
        """Which MoE layer of its model it is."""
        self.carrier: Carrier | None = None
        """Who answers for a transfer that fails; None: it is raised."""

    def fits(self, other: "LayerWeights") -> bool:
        """Say whether buffers made like this layer's tensors can take the other layer's."""
        mine, others = ([_received_as(tensor) for tensor in layer] for layer in (self, other))
        return mine == others


def byte_view(tensor: torch.Tensor) -> torch.Tensor:
    """View every slot of ``[slots, ...]`` as its bytes, in the order of memory.

    Returns:
        ``[slots, bytes]`` of uint8. The tensor itself if the bytes of a slot do not lie together,
        if slots overlap, or if it is no plain tensor: it is sent as vLLM sends it.
    """
    plain = tensor.layout is torch.strided and not is_traceable_wrapper_subclass(tensor)
    if not plain or tensor.dim() == 0 or tensor.is_quantized:
        return tensor
    slots, numbers = tensor.shape[0], math.prod(tensor.shape[1:])
    apart = slots < 2 or tensor.stride(0) >= numbers
    if not apart or not _is_dense(tensor.shape[1:], tensor.stride()[1:]):
        return tensor
    rows = tensor.detach().as_strided((slots, numbers), (tensor.stride(0), 1))
    return rows.view(torch.uint8)


def receive_apart(layers: Sequence[LayerWeights]) -> None:
    """Give buffers of their own to layers whose experts do not fit into those of the first.

    Layers are moved one after another, so these share their memory: as much as the largest needs.
    """
    others = [layer for layer in layers if not layers[0].fits(layer)]
    by_device: dict[torch.device, list[LayerWeights]] = {}
    for layer in others:
        by_device.setdefault(layer[0].device, []).append(layer)
    for device, on_device in by_device.items():
        size = max(sum(_sizes(layer)) for layer in on_device)
        memory = torch.empty(size, dtype=torch.uint8, device=device)
        for layer in on_device:
            layer.buffers = list(_carve(memory, layer))


def buffers_of(
    weights: Sequence[torch.Tensor], buffers: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """Find where a layer's experts are received: in its own buffers, or in those of vLLM."""
    own = getattr(weights, "buffers", None)
    return buffers if own is None else own


def _carve(memory: torch.Tensor, layer: LayerWeights) -> Iterator[torch.Tensor]:
    sizes = _sizes(layer)
    for tensor, end, size in zip(layer, accumulate(sizes), sizes, strict=True):
        if is_bytes(tensor):
            yield memory[end - size :][: tensor.numel()].view(tensor.shape)
        else:
            yield torch.empty_like(tensor)


def _sizes(layer: LayerWeights) -> list[int]:
    return [-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in layer]


def is_bytes(tensor: torch.Tensor) -> bool:
    """Say whether it is what `byte_view` makes: ``[slots, bytes]``."""
    return tensor.dtype == torch.uint8 and tensor.dim() == 2 and tensor.stride(1) == 1


def _received_as(tensor: torch.Tensor) -> tuple[object, ...]:
    shape, device = tuple(tensor.shape), tensor.device
    if is_bytes(tensor):
        return shape, device
    return shape, device, tensor.dtype, tensor.stride()


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a slot's numbers fill one piece of memory, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return 0 in shape
        expected *= size
    return True
