# SPDX-License-Identifier: Apache-2.0
"""A commit reaches the tensors that the model reads, in place."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.reference import derive
from vllm_eplb_plugin.engine.commit_points import commit_layer, commit_model
from vllm_eplb_plugin.engine.committer import (
    CommitError,
    resize_placement,
)
from vllm_eplb_plugin.engine.model_layers import StateSetter
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.placement.derive import derive_into
from vllm_eplb_plugin.settings import Settings

OLD = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
NEW = torch.tensor([[2, 1, 2, 0], [0, 1, 2, 2]])


class Layer:
    """Reads what `set_eplb_state` gave it, as vLLM's MoE layers do."""

    def set_eplb_state(self, moe_layer_idx: int, **tensors: torch.Tensor) -> None:
        rows = {name: tensor[moe_layer_idx] for name, tensor in tensors.items()}
        self.eplb_state = SimpleNamespace(**rows)


class Model:
    """Hands tensors to its layers, as vLLM's `MixtureOfExperts` does."""

    num_moe_layers, num_logical_experts = 2, 3

    def __init__(self) -> None:
        self.moe_layers = [Layer(), Layer()]
        self.expert_weights = [[torch.zeros(4, 2)], [torch.zeros(4, 2)]]

    def set_eplb_state(
        self, expert_load_view: torch.Tensor, l2p: torch.Tensor, counts: torch.Tensor
    ) -> None:
        for index, layer in enumerate(self.moe_layers):
            layer.set_eplb_state(
                index,
                expert_load_view=expert_load_view,
                logical_to_physical_map=l2p,
                logical_replica_count=counts,
            )


def model_state(width: int = 16) -> Any:
    """Two layers, three logical experts, four slots, with tensors full of rubbish."""
    state = SimpleNamespace(
        physical_to_logical_map=OLD.clone(),
        logical_to_physical_map=torch.full((2, 3, width), 77),
        logical_replica_count=torch.full((2, 3), 77),
        model=Model(),
        model_name="model",
    )
    group: Any = None  # for who tells events or checks weights
    Session(Settings(metrics=None), Source(0, 0, 0)).add(state, group)
    load = torch.zeros(2, 4, dtype=torch.int32)
    state.model.set_eplb_state(load, state.logical_to_physical_map, state.logical_replica_count)
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


@pytest.mark.parametrize(
    ("forgotten", "way"), [(None, "whole"), (1, "layer by layer")], ids=["all", "one layer"]
)
def test_a_commit_that_leaves_something_out_is_found_before_anything_is_served(
    forgotten: int | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = model_state()
    commit_model(state, OLD)
    session_of(state).committer_of(state).commit_again()
    assert_layer_reads(state, 1, OLD[1])

    def forget(placement: Any, l2p: Any, counts: Any, layer: int | None) -> None:
        if layer != forgotten:
            derive_into(placement, l2p, counts, layer)

    monkeypatch.setattr("vllm_eplb_plugin.engine.committer.derive_into", forget)
    with pytest.raises(CommitError, match=f"2 layers committed {way} on cpu differs"):
        session_of(state).committer_of(state).commit_again()


@pytest.mark.parametrize("buffered", [False, True])
def test_a_placement_of_more_slots_is_committed_once_there_is_room(buffered: bool) -> None:
    state = model_state()
    if buffered:
        state.physical_to_logical_map_buffer = torch.full((2, 6), -1)
        state.physical_to_logical_map = state.physical_to_logical_map_buffer[:, :4]
    grown = torch.cat([OLD, NEW[:, :2]], dim=1)
    resize_placement(state, 6)
    commit_model(state, grown)
    assert_layer_reads(state, 0, grown[0])
    assert not buffered or state.physical_to_logical_map_buffer.tolist() == grown.tolist()
    resize_placement(state, 4)
    commit_model(state, NEW)
    assert_layer_reads(state, 1, NEW[1])


@pytest.mark.parametrize(("width", "columns"), [(2, 2), (None, 16)])
def test_a_narrow_map_is_what_the_layers_read_from_then_on(width: int | None, columns: int) -> None:
    state = model_state()
    wide = state.logical_to_physical_map
    commit_model(state, OLD)
    setter = StateSetter(state.model, width, lambda: None)
    load = torch.zeros(2, 4, dtype=torch.int32)
    state.model.set_eplb_state(load, wide, state.logical_replica_count)
    state.logical_to_physical_map = setter.logical_to_physical_map
    assert state.logical_to_physical_map.shape == (2, 3, columns)
    assert_layer_reads(state, 0, OLD[0])
    commit_model(state, NEW)
    assert_layer_reads(state, 1, NEW[1])
