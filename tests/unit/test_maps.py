# SPDX-License-Identifier: Apache-2.0
"""Derived maps against plain Python, and what makes a placement invalid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import derive
from vllm_eplb_plugin.placement.maps import (
    InvalidPlacementError,
    count_changed_slots,
    count_replicas,
    derive_logical_maps,
    validate_placement,
)


@st.composite
def placements(draw: st.DrawFn, empty_slots: bool = True) -> tuple[torch.Tensor, int]:
    """``[layers, physical]`` over a number of logical experts, some of them without a slot."""
    num_logical = draw(st.integers(1, 40))
    layers, physical = draw(st.integers(1, 4)), draw(st.integers(1, 64))
    lowest = -1 if empty_slots else 0
    expert = st.integers(lowest, num_logical - 1)
    rows = draw(
        st.lists(
            st.lists(expert, min_size=physical, max_size=physical), min_size=layers, max_size=layers
        )
    )
    dtype = draw(st.sampled_from([torch.int32, torch.int64]))
    return torch.tensor(rows, dtype=dtype), num_logical


@given(placements(), st.integers(0, 3))
@settings(max_examples=300)
def test_derived_maps_equal_the_plain_reference_at_any_width(
    case: tuple[torch.Tensor, int], spare: int
) -> None:
    placement, num_logical = case
    width = max(1, int(count_replicas(placement, num_logical).max())) + spare
    l2p, counts = derive_logical_maps(placement, num_logical, width)
    for layer, row in enumerate(placement.tolist()):
        expected_l2p, expected_counts = derive(row, num_logical, width)
        assert l2p[layer].tolist() == expected_l2p
        assert counts[layer].tolist() == expected_counts
    assert l2p.dtype == counts.dtype == placement.dtype


@given(placements())
@settings(max_examples=100)
def test_one_layer_alone_derives_as_it_does_among_others(case: tuple[torch.Tensor, int]) -> None:
    placement, num_logical = case
    width = placement.shape[1]
    whole = derive_logical_maps(placement, num_logical, width)
    for layer in range(placement.shape[0]):
        alone = derive_logical_maps(placement[layer], num_logical, width)
        assert all(torch.equal(a, w[layer]) for a, w in zip(alone, whole, strict=True))


def test_more_replicas_than_the_width_leave_every_other_row_right() -> None:
    placement = torch.tensor([0, 0, 0, 1, 2])
    l2p, counts = derive_logical_maps(placement, 3, 2)
    assert l2p.tolist() == [[0, 1], [3, -1], [4, -1]]
    assert counts.tolist() == [3, 1, 1]


def test_a_complete_placement_is_valid() -> None:
    validate_placement(torch.tensor([[0, 1, 2, 0]]), (1, 4), 3)


def test_empty_slots_are_valid_only_where_they_are_allowed() -> None:
    placement = torch.tensor([[0, 1, 2, -1]])
    validate_placement(placement, (1, 4), 3, allow_empty_slots=True)
    with pytest.raises(InvalidPlacementError, match="layer 0, slot 3 names logical expert -1"):
        validate_placement(placement, (1, 4), 3)


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ([[0, 1, 2]], "not list"),
        (torch.tensor([[0.0, 1.0, 2.0]]), "not torch.float32"),
        (torch.tensor([[0, 1, 2]], dtype=torch.int16), "not torch.int16"),
        (torch.tensor([0, 1, 2]), r"\[1, 3\], not \[3\]"),
        (torch.tensor([[0, 1, 2, 0]]), r"\[1, 3\], not \[1, 4\]"),
        (torch.tensor([[0, 1, 3]]), "layer 0, slot 2 names logical expert 3; the range is 0 to 2"),
        (torch.tensor([[0, 1, -2]]), "names logical expert -2"),
        (torch.tensor([[0, 1, 1]]), "layer 0 has no slot for logical expert 2"),
    ],
)
def test_an_invalid_placement_is_refused_by_the_rule_it_breaks(
    placement: torch.Tensor, message: str
) -> None:
    with pytest.raises(InvalidPlacementError, match=message):
        validate_placement(placement, (1, 3), 3)


def test_a_placement_on_a_device_is_refused() -> None:
    with pytest.raises(InvalidPlacementError, match="not on meta"):
        validate_placement(torch.empty(1, 3, dtype=torch.long, device="meta"), (1, 3), 3)


def test_changed_slots_are_counted_for_each_layer() -> None:
    old = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    new = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 0]])
    assert count_changed_slots(old, new) == [0, 3]


def test_slots_that_come_or_go_count_as_changed() -> None:
    small, large = torch.tensor([[0, 1]]), torch.tensor([[0, 1, 0, 1]])
    assert count_changed_slots(small, large) == count_changed_slots(large, small) == [2]
