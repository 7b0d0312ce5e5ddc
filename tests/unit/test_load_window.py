# SPDX-License-Identifier: Apache-2.0
"""Loads of logical experts, counted step by step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vllm_eplb_plugin.engine.load_window import HostCopy, LoadWindow, Span, span_of

LAYERS, EXPERTS, SLOTS = 2, 4, 6


@pytest.mark.parametrize(
    ("window", "part", "span"),
    [
        (1000, None, Span(8, 125)),
        (10, None, Span(5, 2)),
        (1, None, Span(1, 1)),
        (1000, 50, Span(20, 50)),
        (10, 50, Span(2, 50)),
        (50, 50, Span(2, 50)),
        (12, 5, Span(3, 5)),
    ],
)
def test_a_window_has_eight_parts_or_one_for_each_look(
    window: int, part: int | None, span: Span
) -> None:
    assert span_of(window, part) == span


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1)), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_each_part_has_the_load_of_its_steps_by_the_placement_of_each(
    steps: list[tuple[bool, int]], parts: int, length: int
) -> None:
    window = LoadWindow(Span(parts, length), LAYERS, EXPERTS, torch.device("cpu"))
    of_part: dict[int, torch.Tensor] = {}
    for step, (counts, seed) in enumerate(steps, start=1):
        generator = torch.Generator().manual_seed(seed)
        p2l = torch.randint(0, EXPERTS, (LAYERS, SLOTS), generator=generator)
        load = torch.randint(0, 9, (LAYERS, SLOTS), generator=generator).int()
        window.step(step, load if counts else None, p2l)
        total = of_part.setdefault((step - 1) // length, torch.zeros(LAYERS, EXPERTS).int())
        for layer in range(LAYERS):
            for slot in range(SLOTS):
                total[layer, p2l[layer, slot]] += counts * load[layer, slot]
    newest = (len(steps) - 1) // length
    nothing = torch.zeros(LAYERS, EXPERTS).int()
    wanted = [of_part.get(newest - back, nothing) for back in reversed(range(parts))]
    assert torch.equal(window.parts(), torch.stack(wanted))
    assert torch.equal(window.parts(1), torch.stack(wanted[-1:]))
    assert torch.equal(window.newest(), wanted[-1])
    window.clear()
    assert not window.parts().any()


def test_what_was_copied_does_not_change_with_the_window() -> None:
    window = LoadWindow(Span(1, 10), 1, 2, torch.device("cpu"))
    placement = torch.tensor([[0, 1]])
    window.step(1, torch.tensor([[3, 4]]).int(), placement)
    newest, parts, copy = window.newest(), window.parts(), HostCopy(placement)
    window.step(2, torch.tensor([[3, 4]]).int(), placement)
    placement[:] = 0
    assert newest.tolist() == [[3, 4]]
    assert parts.tolist() == [[[3, 4]]]
    assert copy.get().tolist() == [[0, 1]]
