# SPDX-License-Identifier: Apache-2.0
"""What a rank pulls, against what vLLM's receivers get."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.transfer.pulls import Pull, joined, plan_pulls, sent_by_message


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


@settings(max_examples=400)
@given(moves(), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_every_expert_that_is_wanted_is_pulled_or_sent(
    move: tuple[np.ndarray, np.ndarray, int], hosts: list[int]
) -> None:
    old, new, size = move
    hosts = hosts[: len(old) // size]
    sent = sent_by_message(old, new, hosts)
    for rank, host in enumerate(hosts):
        there = {other for other in range(len(hosts)) if hosts[other] == host}
        mine, wanted = old[rank * size :][:size], new[rank * size :][:size]
        held_there = {expert for other in there for expert in old[other * size :][:size].tolist()}
        buffer = {}
        for pull in plan_pulls(old, new, rank, size, there):
            assert pull.rank in there
            for offset in range(pull.rows):
                assert pull.row + offset not in buffer
                buffer[pull.row + offset] = old[pull.rank * size + pull.source + offset]
        pulled = [expert for expert in buffer.values() if expert not in mine]
        assert len(pulled) == len(set(pulled))  # each once
        for slot in range(size):
            message = sent[rank * size + slot]
            if wanted[slot] in (mine[slot], -1) or wanted[slot] in held_there:
                assert message == mine[slot]
            else:
                assert message == wanted[slot] and slot not in buffer
                continue
            if wanted[slot] not in (mine[slot], -1):
                assert buffer.get(slot, wanted[slot]) == wanted[slot]
                assert wanted[slot] in buffer.values()
        assert all(buffer[row] == wanted[row] and wanted[row] != mine[row] for row in buffer)


def test_rows_that_lie_together_are_one_pull() -> None:
    old, new = np.array([0, 1, 2, 3, 4, 5, 6, 7]), np.array([4, 5, 6, 3, 0, 1, 2, 7])
    assert plan_pulls(old, new, 0, 4, {0, 1}) == (Pull(1, 0, 0, 3),)
    assert plan_pulls(old, new, 1, 4, {0, 1}) == (Pull(0, 0, 0, 3),)


def test_a_row_goes_on_where_the_last_one_was_taken_from() -> None:
    """Ranks 1 and 2 both hold experts 4 and 5."""
    old = np.array([0, 1, 2, 4, 5, 6, 4, 5, 3])
    new = np.array([4, 5, 2, *old[3:]])
    [pull] = plan_pulls(old, new, 0, 3, {1, 2})
    assert pull.rows == 2


def test_no_rank_is_read_by_all_where_others_hold_the_expert_too() -> None:
    size, ranks = 4, 4
    old = np.array([0, 1, 2, 3, 7, 10, 11, 12, 7, 20, 21, 22, 30, 31, 32, 33])
    new = old.copy()
    new[[0, 12]] = 7
    sources = {plan_pulls(old, new, rank, size, set(range(ranks)))[0].rank for rank in (0, 3)}
    assert sources == {1, 2}


def test_what_no_rank_of_the_host_holds_is_sent() -> None:
    old, new = np.array([0, 1, 2, 3]), np.array([2, 1, 0, 3])
    assert plan_pulls(old, new, 0, 2, {0}) == ()
    assert sent_by_message(old, new, [0, 1]).tolist() == new.tolist()
    assert sent_by_message(old, new, [0, 0]).tolist() == old.tolist()


@pytest.mark.parametrize("rows", [[], [Pull(0, 0, 0, 1)]])
def test_few_rows_stay_as_they_are(rows: list[Pull]) -> None:
    assert list(joined(rows)) == rows
