# SPDX-License-Identifier: Apache-2.0
"""Digests tell experts apart, and the ledger finds the slot that is wrong."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.observe.checks.weights import WeightLedger, WeightsError, digest_slots


def weights(slots: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(slots, 5, 3, generator=generator),
        torch.randn(slots, 7, generator=generator).to(torch.bfloat16),
        torch.randint(0, 255, (slots, 3), generator=generator).to(torch.uint8),
    ]


def test_equal_weights_have_equal_digests_wherever_they_are() -> None:
    layer = [tensor[torch.tensor([2, 0, 2])] for tensor in weights()]
    moved, original = digest_slots(layer).tolist(), digest_slots(weights()).tolist()
    assert moved == [original[2], original[0], original[2]]
    assert len(set(original)) == 3


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_any_changed_byte_changes_the_digest(tensor: int, slot: int, position: int) -> None:
    layer = weights()
    before = digest_slots(layer)
    changed = layer[tensor].contiguous().view(torch.uint8).view(3, -1)
    changed[slot, position % changed.shape[1]] ^= 1
    differs = digest_slots(layer) != before
    assert differs.nonzero().flatten().tolist() == [slot]


def test_two_tensors_that_change_places_change_the_digest() -> None:
    first, second = torch.ones(1, 4), torch.zeros(1, 4)
    assert not torch.equal(digest_slots([first, second]), digest_slots([second, first]))


def test_two_words_that_change_places_change_the_digest() -> None:
    row = torch.arange(8, dtype=torch.long)
    swapped = row[torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])]
    assert digest_slots([row[None]]) != digest_slots([swapped[None]])


def test_the_ledger_names_local_slots_that_hold_something_else() -> None:
    placement = torch.tensor([[0, 1, 2, 0]])
    ledger = WeightLedger.from_slots(torch.tensor([[10, 11, 12, 10]]), placement, 3)
    now = torch.tensor([2, 1, 0, -1])
    assert ledger.mismatched_slots(0, now, torch.tensor([12, 11]), first_slot=0) == []
    assert ledger.mismatched_slots(0, now, torch.tensor([11, 99]), first_slot=2) == [2]


def test_replicas_that_were_loaded_with_other_weights_are_refused() -> None:
    placement = torch.tensor([[0, 1, 2, 0]])
    with pytest.raises(WeightsError, match="layer 0: slot [03] was loaded with other weights"):
        WeightLedger.from_slots(torch.tensor([[10, 11, 12, 13]]), placement, 3)
