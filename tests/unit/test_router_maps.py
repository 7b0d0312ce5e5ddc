# SPDX-License-Identifier: Apache-2.0
"""The check of the maps that the router reads finds what answers do not tell."""

from collections.abc import Callable

import pytest
import torch

from tests.reference import derive
from vllm_eplb_plugin.observe.checks.router_maps import mismatched_experts

PLACEMENT = [2, 0, 1, 0, 3, 0]
Maps = tuple[torch.Tensor, torch.Tensor]


def maps(dtype: torch.dtype = torch.long) -> Maps:
    l2p, counts = derive(PLACEMENT, 4, width=4)
    return torch.tensor(l2p, dtype=dtype), torch.tensor(counts, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_maps_that_follow_from_the_placement_are_right(dtype: torch.dtype) -> None:
    assert mismatched_experts(torch.tensor(PLACEMENT), *maps(dtype)) == []


def one_replica_too_few(l2p: torch.Tensor, counts: torch.Tensor) -> None:
    counts[0] -= 1


def one_replica_too_many(l2p: torch.Tensor, counts: torch.Tensor) -> None:
    counts[0] += 1


def another_slot(l2p: torch.Tensor, counts: torch.Tensor) -> None:
    l2p[0, 2] = 4


def a_slot_behind_the_last(l2p: torch.Tensor, counts: torch.Tensor) -> None:
    l2p[0, 3] = 4


@pytest.mark.parametrize(
    "spoil", [one_replica_too_few, one_replica_too_many, another_slot, a_slot_behind_the_last]
)
def test_an_expert_whose_replicas_are_not_found_is_named(
    spoil: Callable[[torch.Tensor, torch.Tensor], None],
) -> None:
    l2p, counts = maps()
    spoil(l2p, counts)
    assert mismatched_experts(torch.tensor(PLACEMENT), l2p, counts) == [0]


def test_an_empty_slot_belongs_to_nobody() -> None:
    l2p, counts = derive([0, -1, 1], 2, width=2)
    assert (
        mismatched_experts(torch.tensor([0, -1, 1]), torch.tensor(l2p), torch.tensor(counts)) == []
    )
