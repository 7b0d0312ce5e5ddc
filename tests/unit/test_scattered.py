# SPDX-License-Identifier: Apache-2.0
"""From vLLM's first placement to a scattered one and back, every rank sends and receives."""

import pytest
import torch

from vllm_eplb_plugin.placement.maps import validate_placement
from vllm_eplb_plugin.placement.scattered import scatter_experts


def ranks_of(placement: torch.Tensor, num_ranks: int) -> list[set[int]]:
    return [set(rank.tolist()) for rank in placement.reshape(num_ranks, -1)]


def received(before: list[set[int]], after: list[set[int]]) -> list[set[int]]:
    return [new - old for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("num_experts", "num_ranks"),
    [
        (experts, ranks)
        for experts in (8, 60, 64, 128, 256, 384)
        for ranks in (2, 3, 4, 8, 16, 64)
        if experts >= ranks
    ],
)
@pytest.mark.parametrize("at_least_redundant", [0, 1, 4, 32, 128])
def test_every_rank_has_to_send_and_to_receive(
    num_experts: int, num_ranks: int, at_least_redundant: int
) -> None:
    redundant = at_least_redundant + -(num_experts + at_least_redundant) % num_ranks
    slots = num_experts + redundant
    scattered = scatter_experts(slots, num_experts, num_ranks)
    validate_placement(scattered[None], (1, slots), num_experts)
    assert int(scattered.bincount().max()) <= redundant + 1
    there = ranks_of(scattered, num_ranks)
    first = ranks_of(torch.arange(slots) % num_experts, num_ranks)
    back = received(there, first)
    assert all(back)
    for rank, held in enumerate(there):
        only_here = held - set().union(*there[:rank], *there[rank + 1 :])
        assert only_here & set().union(*back[:rank], *back[rank + 1 :])
