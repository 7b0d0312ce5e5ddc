# SPDX-License-Identifier: Apache-2.0
"""A commit reaches the tensors that the model reads, in place."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.reference import derive
from vllm_eplb_plugin.state.commit import (
    commit_layer,
    commit_model,
    narrow_logical_to_physical_map,
)

OLD = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
NEW = torch.tensor([[2, 1, 2, 0], [0, 1, 2, 2]])


class Layer:
    """Reads what `set_eplb_state` gave it, as vLLM's MoE layers do."""

    def set_eplb_state(self, moe_layer_idx: int, **tensors: torch.Tensor) -> None:
        rows = {name: tensor[moe_layer_idx] for name, tensor in tensors.items()}
        self.eplb_state = SimpleNamespace(**rows)


class DeafLayer(Layer):
    """Keeps reading the first tensors that it was ever given."""

    def set_eplb_state(self, moe_layer_idx: int, **tensors: torch.Tensor) -> None:
        if not hasattr(self, "eplb_state"):
            super().set_eplb_state(moe_layer_idx, **tensors)


def model_state(layer_type: type[Layer] = Layer, width: int = 16) -> Any:
    """Two layers, three logical experts, four slots, with tensors full of rubbish."""
    layers = [layer_type(), layer_type()]
    state = SimpleNamespace(
        physical_to_logical_map=OLD.clone(),
        logical_to_physical_map=torch.full((2, 3, width), 77),
        logical_replica_count=torch.full((2, 3), 77),
        expert_load_pass_buffer=torch.zeros(2, 4, dtype=torch.int32),
        model=SimpleNamespace(num_moe_layers=2, num_logical_experts=3, moe_layers=layers),
        model_name="model",
    )
    for index, layer in enumerate(layers):
        layer.set_eplb_state(
            index,
            expert_load_view=state.expert_load_pass_buffer,
            logical_to_physical_map=state.logical_to_physical_map,
            logical_replica_count=state.logical_replica_count,
        )
    return state


def assert_layer_reads(state: Any, layer: int, placement: torch.Tensor) -> None:
    seen = state.model.moe_layers[layer].eplb_state
    width = state.logical_to_physical_map.shape[-1]
    l2p, counts = derive(placement.tolist(), 3, width)
    assert state.physical_to_logical_map[layer].tolist() == placement.tolist()
    assert seen.logical_to_physical_map.tolist() == l2p
    assert seen.logical_replica_count.tolist() == counts


def test_a_whole_commit_writes_every_row_of_every_layer() -> None:
    state = model_state()
    commit_model(state, NEW)
    for layer in range(2):
        assert_layer_reads(state, layer, NEW[layer])


def test_a_layer_commit_leaves_the_other_layers_alone() -> None:
    state = model_state()
    commit_model(state, OLD)
    commit_layer(state, NEW[1], 1)
    assert_layer_reads(state, 0, OLD[0])
    assert_layer_reads(state, 1, NEW[1])


def test_another_number_of_slots_is_refused_and_nothing_changes() -> None:
    state = model_state()
    commit_model(state, OLD)
    with pytest.raises(ValueError, match="the number of slots must stay"):
        commit_layer(state, NEW[1, :3], 1)
    assert_layer_reads(state, 1, OLD[1])


def test_a_narrow_map_is_what_the_layers_read_from_then_on() -> None:
    state = model_state()
    narrow_logical_to_physical_map(state, 2)
    assert state.logical_to_physical_map.shape == (2, 3, 2)
    assert_layer_reads(state, 0, OLD[0])
    commit_model(state, NEW)
    assert_layer_reads(state, 1, NEW[1])


def test_a_layer_that_goes_on_reading_the_wide_map_is_refused() -> None:
    with pytest.raises(RuntimeError, match="MoE layer 0 .DeafLayer. of model does not read"):
        narrow_logical_to_physical_map(model_state(DeafLayer), 2)
