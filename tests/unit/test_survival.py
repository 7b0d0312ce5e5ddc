# SPDX-License-Identifier: Apache-2.0
"""Which ranks' deaths every expert would survive."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vllm_eplb_plugin.placement.survival import layer_lost_without, lost_without, survivable_ranks


def lost_one_by_one(layers: list[list[int]], num_ranks: int) -> list[int]:
    """Take each rank away and look what is missing."""
    size, lost = len(layers[0]) // num_ranks, []
    for rank in range(num_ranks):
        others = [row[: rank * size] + row[(rank + 1) * size :] for row in layers]
        before = [set(row) - {-1} for row in layers]
        lost.append(sum(len(b - set(o)) for b, o in zip(before, others, strict=True)))
    return lost


@st.composite
def placements(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    """Layers of slots, some empty, and the ranks that hold them."""
    num_ranks, size = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    expert = st.integers(-1, draw(st.integers(0, 9)))
    slots = st.lists(expert, min_size=num_ranks * size, max_size=num_ranks * size)
    return draw(st.lists(slots, min_size=1, max_size=3)), num_ranks


@given(case=placements())
def test_what_is_lost_is_what_no_other_rank_has(case: tuple[list[list[int]], int]) -> None:
    layers, num_ranks = case
    lost = lost_one_by_one(layers, num_ranks)
    assert lost_without(np.array(layers), num_ranks) == lost
    assert survivable_ranks(np.array(layers), num_ranks) == [
        rank for rank in range(num_ranks) if lost[rank] == 0
    ]


def test_two_replicas_on_one_rank_survive_nothing() -> None:
    placement = np.array([[0, 0, 1, 2, 1, 2]])
    assert lost_without(placement, 3) == [1, 0, 0]
    assert survivable_ranks(placement, 3) == [1, 2]


def test_one_layer_that_needs_a_rank_is_enough() -> None:
    assert survivable_ranks(np.array([[0, 1, 1, 0], [0, 1, 1, 1]]), 2) == [1]


def test_empty_slots_are_nobodys() -> None:
    assert lost_without(np.array([[-1, -1, 0, -1, 0, 1]]), 3) == [0, 0, 1]
    assert lost_without(np.full((2, 4), -1), 2) == [0, 0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_tensor_and_layers_one_by_one_say_the_same(dtype: torch.dtype) -> None:
    placement = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 1]], dtype=dtype)
    assert lost_without(placement, 2) == [1, 0]
    assert lost_without(iter(placement.numpy()), 2) == [1, 0]
    assert layer_lost_without(placement[1], 2).tolist() == [1, 0]
