# SPDX-License-Identifier: Apache-2.0
"""Rank loads, balancedness and what has to be sent."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.placement.balance import (
    balancedness,
    count_received_experts,
    rank_loads,
)


def test_replicas_share_the_load_of_their_expert() -> None:
    load = torch.tensor([[12, 2, 4]])
    placement = torch.tensor([[0, 1, 0, 0, 2, -1]])
    assert rank_loads(load, placement, 2).tolist() == [[4 + 2 + 4, 4 + 4]]


def test_balancedness_is_mean_over_max_summed_over_layers() -> None:
    load = torch.tensor([[6, 2], [5, 5]])
    placement = torch.tensor([[0, 1], [0, 1]])
    assert balancedness(load, placement, 2) == pytest.approx((4 + 5) / (6 + 5))


def test_balancedness_without_any_load_is_perfect() -> None:
    assert balancedness(torch.zeros(2, 4), torch.arange(4).repeat(2, 1), 2) == 1.0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_no_load_is_lost_or_made(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    load = torch.randint(0, 1000, (3, 8), generator=generator)
    order = torch.stack([torch.randperm(8, generator=generator) for _ in range(3)])
    extra = torch.randint(0, 8, (3, 4), generator=generator)
    loads = rank_loads(load, torch.cat([order, extra], dim=1), 4)
    assert loads.sum(dim=1).tolist() == pytest.approx(load.sum(dim=1).tolist())


def test_an_expert_is_received_once_and_only_where_it_was_not() -> None:
    old = torch.tensor([[0, 1, 2, 3]])
    # Rank 0 keeps 0 and gets 3; rank 1 gets 1, for both of its slots.
    assert count_received_experts(old, torch.tensor([[3, 0, 1, 1]]), 2) == [2]
    # Slots that change places within a rank, and empty ones, cost nothing.
    assert count_received_experts(old, torch.tensor([[1, 0, -1, 2]]), 2) == [0]
