# SPDX-License-Identifier: Apache-2.0
"""Faults that see placements one rearrangement late."""

from typing import Any

import torch

from vllm_eplb_plugin.faults.selection import overrides_on_purpose
from vllm_eplb_plugin.faults.stale import STALE_SOURCES, OneLate
from vllm_eplb_plugin.overrides.override import select
from vllm_eplb_plugin.settings import Settings

PLACEMENTS = [torch.tensor([0, 1, shift]) for shift in range(3)]


def test_a_placement_is_seen_when_another_is_in_force() -> None:
    late = OneLate()
    seen = [late("a", PLACEMENTS[n]) for n in (0, 0, 1, 1, 2)]
    assert [int(placement[2]) for placement in seen] == [0, 0, 0, 0, 1]
    assert torch.equal(late("b", PLACEMENTS[2]), PLACEMENTS[2])


def test_a_commit_that_writes_over_a_placement_does_not_change_what_is_seen() -> None:
    late, in_force = OneLate(), PLACEMENTS[0].clone()
    late("a", in_force)
    in_force.copy_(PLACEMENTS[1])
    assert torch.equal(late("a", in_force), PLACEMENTS[0])


def test_each_layer_s_transfer_reads_what_was_in_its_own_slots() -> None:
    [override] = select([o for o in STALE_SOURCES if "transfer_layer" in o.target], "0.19.0")
    read: list[torch.Tensor] = []

    def transfer_layer(
        old_layer_indices: torch.Tensor,
        new_layer_indices: torch.Tensor,
        expert_weights: Any,
        is_profile: bool = False,
    ) -> None:
        read.append(old_layer_indices)

    layers = [[torch.zeros(3, 2)], [torch.zeros(3, 2)]]
    move = override.replace(transfer_layer)
    for old, new in ((0, 1), (1, 2)):
        for weights in layers:
            move(PLACEMENTS[old], PLACEMENTS[new], expert_weights=weights)
    move(PLACEMENTS[2], PLACEMENTS[0], expert_weights=layers[0], is_profile=True)
    expected = [PLACEMENTS[number] for number in (0, 0, 0, 0, 2)]
    assert all(map(torch.equal, read, expected))


def test_a_slow_transfer_and_a_fault_of_it_are_one_override() -> None:
    settings = Settings(loopback=True, fault="stale_sources", transfer_delay_ms=1.0)
    slow = Settings(loopback=True, transfer_delay_ms=1.0)
    for release in ("0.18.0", "0.26.0", "0.33.0"):
        both = overrides_on_purpose(settings, release)
        targets = [override.target for override in both]
        assert len(targets) == len(set(targets)) == 2
        assert {override.target for override in overrides_on_purpose(slow, release)} < set(targets)
