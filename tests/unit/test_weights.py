# SPDX-License-Identifier: Apache-2.0
"""Digests tell experts apart, and the ledger finds the slot that is wrong."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.observe.checks import digests
from vllm_eplb_plugin.observe.checks.digests import digest_parts, join_parts
from vllm_eplb_plugin.observe.checks.weights import (
    WeightLedger,
    WeightsError,
    check_replicas,
    replicated_slots,
    unlike_replicas,
)


def digest_slots(layer: list[torch.Tensor]) -> torch.Tensor:
    return join_parts(digest_parts(layer))


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
@settings(max_examples=100)
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


@given(st.integers(1, 200), st.integers(0, 40), st.lists(st.integers(0, 4), max_size=5))
@settings(max_examples=100)
def test_digests_do_not_depend_on_how_many_are_computed_at_once(
    at_once: int, size: int, slots: list[int]
) -> None:
    generator = torch.Generator().manual_seed(size)
    rows = torch.randint(0, 255, (5, size + 3), generator=generator).to(torch.uint8)
    layer = [rows[:, 3:], rows[:, :3]]  # neither is aligned to words
    whole = digest_parts([tensor.clone() for tensor in layer])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_BYTES_AT_ONCE", at_once)
        assert torch.equal(digest_parts(layer), whole)
        some = torch.tensor(slots, dtype=torch.long)
        assert not slots or torch.equal(digest_parts(layer, some), whole[some])


def test_a_tensor_that_is_not_contiguous_has_the_digest_of_its_numbers() -> None:
    tensor = torch.randn(6, 4).T
    assert torch.equal(digest_parts([tensor]), digest_parts([tensor.contiguous()]))


def test_what_is_small_has_a_digest_of_its_own() -> None:
    weights, scale = torch.randn(2, 64), torch.randn(2, 3)
    before = digest_parts([weights, scale])
    assert (digest_parts([weights, scale + 1]) != before).tolist() == [[False, True]] * 2
    assert (digest_parts([weights + 1, scale]) != before).tolist() == [[True, False]] * 2
    # Of a gated MLP, the second weights are half of the first.
    half = torch.randn(2, 32)
    both = digest_parts([weights, half])
    assert (digest_parts([weights, half + 1]) != both).tolist() == [[True, False]] * 2


def parts(numbers: list[int], small: list[int] | None = None) -> torch.Tensor:
    """``[1, physical, 2]``."""
    return torch.tensor([list(zip(numbers, small or [0] * len(numbers), strict=True))])


def ledger(placement: torch.Tensor, experts: int, layer: list[torch.Tensor]) -> WeightLedger:
    return WeightLedger.from_parts(digest_parts(layer)[None], placement, experts, "tiny")


def test_the_ledger_names_local_slots_that_hold_something_else() -> None:
    layer = [tensor[torch.tensor([0, 1, 2, 0])] for tensor in weights()]
    kept = ledger(torch.tensor([[0, 1, 2, 0]]), 3, layer)
    now = torch.tensor([2, 1, 0, -1])
    held = kept.digest(0, [tensor[torch.tensor([2, 1])] for tensor in layer])
    assert kept.mismatched_slots(0, now, held, first_slot=0) == []
    held = kept.digest(0, [tensor[torch.tensor([1, 1])] for tensor in layer])
    assert kept.mismatched_slots(0, now, held, first_slot=2) == [2]


def test_the_ledger_leaves_out_what_is_small_where_replicas_differ_in_it() -> None:
    placement = torch.tensor([[0, 1, 0, 1]])
    alike = torch.tensor([0, 1, 0, 1])
    layer = [torch.randn(4, 64)[alike], torch.arange(4.0)]
    kept = ledger(placement, 2, layer)
    assert kept.without_small == {0}
    moved = [tensor[torch.tensor([2, 1])] for tensor in layer]
    assert kept.mismatched_slots(0, placement[0], kept.digest(0, moved), 0) == []
    wrong = [tensor[torch.tensor([1, 1])] for tensor in layer]
    assert kept.mismatched_slots(0, placement[0], kept.digest(0, wrong), 0) == [0]


def test_replicas_that_were_loaded_with_other_weights_are_refused() -> None:
    placement = torch.tensor([[0, 1, 2, 0]])
    wrong = "layer 0 of tiny: slot 3 was loaded with other weights than slot 0, though both hold"
    with pytest.raises(WeightsError, match=wrong):
        WeightLedger.from_parts(parts([10, 11, 12, 13]), placement, 3, "tiny")
    with pytest.raises(WeightsError, match="and 2 more slots"):
        check_replicas(torch.tensor([[1, 2, 3, 4]]), torch.ones(1, 4, dtype=torch.long), "tiny")


@given(
    st.lists(st.lists(st.integers(-1, 3), min_size=6, max_size=6), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300)
def test_replicas_are_found_as_a_plain_loop_finds_them(rows: list[list[int]], random: Any) -> None:
    digests_of = [[random.randrange(3) for _ in row] for row in rows]
    replicated, unlike = [], []
    for layer, row in enumerate(rows):
        replicated.append([expert != -1 and row.count(expert) > 1 for expert in row])
        for slot, expert in enumerate(row):
            first = row.index(expert)
            if expert != -1 and digests_of[layer][slot] != digests_of[layer][first]:
                unlike.append([layer, slot, first])
    placement = torch.tensor(rows)
    assert replicated_slots(placement).tolist() == replicated
    assert unlike_replicas(torch.tensor(digests_of), placement).tolist() == unlike
