# SPDX-License-Identifier: Apache-2.0
"""Experts are sent as bytes over the model's own memory, into buffers that fit their layer."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.engine.model_layers import StateSetter
from vllm_eplb_plugin.transfer.from_buffer import in_words
from vllm_eplb_plugin.transfer.layer_weights import (
    LayerWeights,
    TensorKind,
    buffers_of,
    byte_view,
    receive_apart,
)

DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.float64, torch.complex64]
DTYPES += [
    getattr(torch, name)
    for name in ("float8_e8m0fnu", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn_x2")
    if hasattr(torch, name)
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """``[slots, ...]`` whose slots are dense: padded between slots, their dimensions permuted."""
    slots, dtype = draw(st.integers(1, 4)), draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    order = draw(st.permutations(range(len(shape))))
    size, gap, offset = math.prod(shape), draw(st.integers(0, 5)), draw(st.integers(0, 3))
    memory = torch.arange((offset + slots * (size + gap)) * dtype.itemsize) % 2
    rows = memory.to(torch.uint8).view(dtype)[offset:].view(slots, size + gap)[:, :size]
    permuted = rows.unflatten(1, [shape[dim] for dim in order]) if shape else rows[:, 0]
    back = sorted(range(len(order)), key=order.__getitem__)
    return permuted.permute(0, *(1 + dim for dim in back)) if shape else permuted


@given(tensors(), st.data())
@settings(max_examples=300)
def test_a_byte_view_has_exactly_the_bytes_of_each_slot(
    tensor: torch.Tensor, data: st.DataObject
) -> None:
    size = math.prod(tensor.shape[1:]) * tensor.element_size()
    view = byte_view(tensor)
    assert (view.dtype, tuple(view.shape)) == (torch.uint8, (len(tensor), size))
    assert view.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert size == 0 or view.data_ptr() == tensor.data_ptr()
    before = tensor.clone()
    slot = data.draw(st.integers(0, len(tensor) - 1))
    view[slot] ^= 1
    changed = [not same(now, old) for now, old in zip(tensor, before, strict=True)]
    assert changed == [index == slot and size > 0 for index in range(len(tensor))]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    first, second = (
        tensor.contiguous().reshape(1, tensor.numel()).view(torch.uint8) for tensor in (one, other)
    )
    return torch.equal(first, second)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.0),
        torch.zeros(4, 6)[:, ::2],
        torch.zeros(1, 6).expand(4, 6),
        torch.zeros(4, 6).to_sparse(),
    ],
    ids=["no dimension", "gaps", "one row for all", "sparse"],
)
def test_what_has_no_bytes_of_its_own_in_each_slot_is_left_as_it_is(tensor: torch.Tensor) -> None:
    assert byte_view(tensor) is tensor


def test_a_view_of_bytes_is_told_as_what_the_layer_has() -> None:
    layer = LayerWeights(LayerWeights([torch.zeros(3, 2, 4).half().transpose(1, 2)]))
    assert layer.kinds == [TensorKind(3, 16, "cpu", "float16 [4, 2] with strides [1, 4]")]
    assert layer[0].shape == (3, 16)


def layers_of(*sizes: list[int]) -> list[LayerWeights]:
    return [LayerWeights(torch.zeros(4, size) for size in layer) for layer in sizes]


def test_only_a_layer_that_does_not_fit_receives_apart() -> None:
    layers = layers_of([6, 4], [6, 4], [6, 5], [6], [6, 4, 1])
    receive_apart(layers)
    vllm_s = [torch.empty_like(tensor) for tensor in layers[0]]
    for layer in layers[:2]:
        assert buffers_of(layer, vllm_s) is vllm_s
    assert buffers_of([torch.zeros(1)], vllm_s) is vllm_s
    for layer in layers[2:]:
        buffers = buffers_of(layer, vllm_s)
        assert [buffer.shape for buffer in buffers] == [tensor.shape for tensor in layer]
    first = {layer.buffers[0].data_ptr() for layer in layers[2:] if layer.buffers}
    assert len(first) == 1  # they share one piece of memory


@given(st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=4), min_size=2, max_size=4))
@settings(max_examples=100)
def test_tensors_of_a_layer_do_not_share_a_byte_of_its_buffer(sizes: list[list[int]]) -> None:
    layers = layers_of(*sizes)
    receive_apart(layers)
    for layer in layers[1:]:
        for number, buffer in enumerate(layer.buffers or ()):
            buffer.fill_(number)
            assert buffer.is_contiguous() and buffer.data_ptr() % 8 == 0
        for number, buffer in enumerate(layer.buffers or ()):
            assert (buffer == number).all()


def test_each_device_has_memory_of_its_own_to_receive_into() -> None:
    layers = [LayerWeights([torch.zeros(4, 2, device=name)]) for name in ("cpu", "meta", "cpu")]
    receive_apart(layers)
    assert layers[1].buffers is not None and layers[1].buffers[0].device.type == "meta"
    assert layers[2].buffers is None


def test_a_tensor_without_bytes_of_its_own_is_received_as_it_is() -> None:
    layers = [LayerWeights([torch.zeros(4, 6)]), LayerWeights([torch.zeros(4, 6)[:, ::2]])]
    receive_apart(layers)
    assert layers[1].buffers is not None and layers[1].buffers[0].shape == (4, 3)
    assert layers[1].buffers[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("size", "offset", "word"),
    [
        (24, 0, torch.int64),
        (24, 4, torch.int32),
        (12, 0, torch.int32),
        (6, 2, torch.int16),
        (5, 0, torch.uint8),
        (24, 1, torch.uint8),
    ],
)
def test_bytes_are_copied_in_the_widest_words_that_fit(
    size: int, offset: int, word: torch.dtype
) -> None:
    memory = torch.arange(offset + 3 * size).to(torch.uint8)
    rows = memory[offset:].view(3, size)
    words, others = in_words(rows, torch.zeros(3, size, dtype=torch.uint8))
    assert words.dtype == others.dtype == word
    assert torch.equal(words.view(torch.uint8), rows)
    other = torch.zeros(3, 5)
    assert in_words(other) == (other,)


class Model:
    """Fills its experts' weights each time, as vLLM's `MixtureOfExperts` does."""

    def __init__(self) -> None:
        self.layers = [torch.zeros(4, 2).half(), torch.zeros(4, 3)]
        self.expert_weights: Any = []

    def set_eplb_state(self, load: torch.Tensor, l2p: torch.Tensor, counts: torch.Tensor) -> None:
        self.expert_weights = [iter([tensor]) for tensor in self.layers]


MAPS = torch.zeros(2, 4), torch.arange(24).view(2, 3, 4), torch.zeros(2, 3)


def test_elastic_ep_that_fills_weights_anew_gets_bytes_and_buffers_again() -> None:
    model, calls = Model(), []
    setter = StateSetter(model, 2, lambda: calls.append(len(model.expert_weights)))
    model.set_eplb_state(*MAPS)
    assert setter.logical_to_physical_map is not None
    narrow = setter.logical_to_physical_map
    assert narrow.tolist() == MAPS[1][..., :2].tolist()
    model.expert_weights = []
    model.set_eplb_state(MAPS[0], narrow, MAPS[2])
    assert setter.logical_to_physical_map.data_ptr() == narrow.data_ptr()
    assert [layer[0].dtype for layer in model.expert_weights] == [torch.uint8] * 2
    pointers = [layer[0].data_ptr() for layer in model.expert_weights]
    assert pointers == [tensor.data_ptr() for tensor in model.layers]
    assert model.expert_weights[1].buffers[0].shape == (4, 12)
    assert calls == [2]  # the check of a model that is added


def test_a_model_and_its_language_model_go_on_sharing_their_weights() -> None:
    shared = [[torch.zeros(4, 2)]]
    inner = SimpleNamespace(expert_weights=shared)
    outer = SimpleNamespace(expert_weights=shared, set_eplb_state=lambda *_: None)
    StateSetter(outer, None, lambda: None)(*MAPS)
    assert inner.expert_weights is outer.expert_weights
    assert inner.expert_weights[0][0].dtype == torch.uint8


def test_a_model_may_keep_its_weights_in_a_tuple() -> None:
    model = SimpleNamespace(expert_weights=([torch.zeros(4, 2)],), set_eplb_state=lambda *_: None)
    StateSetter(model, None, lambda: None)(*MAPS)
    assert model.expert_weights[0][0].dtype == torch.uint8
