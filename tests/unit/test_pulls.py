# SPDX-License-Identifier: Apache-2.0
"""What a rank pulls, against what vLLM's receivers get."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.transfer.pulls import LayerPulls, Pull, joined, plan_pulls


@st.composite
def moves(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Two placements of up to four ranks, with empty slots, and slots of a rank."""
    ranks, size = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    experts = st.integers(-1, draw(st.integers(0, ranks * size - 1)))
    row = st.lists(experts, min_size=ranks * size, max_size=ranks * size)
    old = np.array(draw(row))
    held = sorted({*old.tolist()} - {-1})
    wanted = st.sampled_from([-1, *held])
    new = draw(st.lists(wanted, min_size=ranks * size, max_size=ranks * size))
    return old, np.array(new), size


@settings(max_examples=400, deadline=None)
@given(moves(), st.sets(st.integers(0, 3)))
def test_every_expert_that_is_wanted_is_in_the_buffer_or_comes_by_message(
    move: tuple[np.ndarray, np.ndarray, int], readable: set[int]
) -> None:
    old, new, size = move
    ranks = len(old) // size
    for rank in range(ranks):
        plan = plan_pulls(old, new, rank, size, {r for r in readable if r < ranks})
        buffer = {}
        for pull in plan.pulls:
            assert pull.rank == rank or pull.rank in readable
            for offset in range(pull.rows):
                held = old[pull.rank * size + pull.source + offset]
                assert pull.row + offset not in buffer
                buffer[pull.row + offset] = held
        for expert, row in plan.by_message:
            assert row not in buffer
            assert not any(expert in old[r * size :][:size] for r in readable | {rank} if r < ranks)
            buffer[row] = expert
        mine, wanted = old[rank * size :][:size], new[rank * size :][:size]
        received = [e for row, e in buffer.items() if e not in mine]
        assert len(received) == len(set(received))  # each once
        for slot in range(size):
            if wanted[slot] >= 0 and wanted[slot] != mine[slot]:
                assert buffer.get(slot, wanted[slot]) == wanted[slot]
                assert wanted[slot] in buffer.values()
        assert all(buffer[row] == wanted[row] and wanted[row] != mine[row] for row in buffer)


def test_rows_that_lie_together_are_one_pull() -> None:
    old, new = np.array([0, 1, 2, 3, 4, 5, 6, 7]), np.array([4, 5, 6, 3, 0, 1, 2, 7])
    assert plan_pulls(old, new, 0, 4, {0, 1}) == LayerPulls((Pull(1, 0, 0, 3),), ())
    assert plan_pulls(old, new, 1, 4, {0, 1}) == LayerPulls((Pull(0, 0, 0, 3),), ())


def test_a_row_goes_on_where_the_last_one_was_taken_from() -> None:
    """Ranks 1 and 2 both hold experts 4 and 5."""
    old = np.array([0, 1, 2, 4, 5, 6, 4, 5, 3])
    new = np.array([4, 5, 2, *old[3:]])
    [pull] = plan_pulls(old, new, 0, 3, {1, 2}).pulls
    assert pull.rows == 2


def test_no_rank_is_read_by_all_where_others_hold_the_expert_too() -> None:
    size, ranks = 4, 4
    old = np.array([0, 1, 2, 3, 7, 10, 11, 12, 7, 20, 21, 22, 30, 31, 32, 33])
    new = old.copy()
    new[[0, 12]] = 7
    sources = {plan_pulls(old, new, rank, size, set(range(ranks))).pulls[0].rank for rank in (0, 3)}
    assert sources == {1, 2}


def test_what_no_readable_rank_holds_comes_by_message() -> None:
    old, new = np.array([0, 1, 2, 3]), np.array([2, 1, 0, 3])
    assert plan_pulls(old, new, 0, 2, {0}) == LayerPulls((), ((2, 0),))


@pytest.mark.parametrize("rows", [[], [Pull(0, 0, 0, 1)]])
def test_few_rows_stay_as_they_are(rows: list[Pull]) -> None:
    assert list(joined(rows)) == rows
