# SPDX-License-Identifier: Apache-2.0
"""What is said of a layer that was pulled, and that it is copied into the right slots."""

import inspect
from dataclasses import asdict
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.distributed.eplb.rebalance_execute import move_to_buffer

from vllm_eplb_plugin.transfer import from_buffer
from vllm_eplb_plugin.transfer.received import Received


@st.composite
def slots(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """What the slots of three ranks hold and get, some of them nothing."""
    experts = st.integers(-1, 9)
    row = st.lists(experts, min_size=12, max_size=12)
    return np.array(draw(row)), np.array(draw(row))


@settings(max_examples=300)
@given(slots(), st.integers(0, 2))
def test_it_is_what_vllm_says(move: tuple[np.ndarray, np.ndarray], rank: int) -> None:
    old, new = move
    others: dict[str, Any] = dict.fromkeys(inspect.signature(move_to_buffer).parameters)
    theirs = move_to_buffer(
        **others
        | {
            "num_local_experts": 4,
            "old_indices": old,
            "new_indices": new,
            "expert_weights": [torch.zeros(4, 2)],
            "expert_weights_buffers": [torch.zeros(4, 2)],
            "ep_rank": rank,
            "communicator": MagicMock(),
        }
    )
    mine = slice(rank * 4, rank * 4 + 4)
    ours = asdict(Received.of(old[mine], new[mine]))
    for name, value in asdict(theirs).items():
        np.testing.assert_array_equal(ours[name], value)
        assert np.asarray(ours[name]).dtype == np.asarray(value).dtype


def test_rows_of_every_size_are_copied_into_their_slots() -> None:
    old, new = np.array([0, 1, 2, 3, 4, 5]), np.array([5, 0, 1, 3, 0, 5])
    for size in (3, from_buffer._LARGE_BYTES):
        weights = [torch.arange(6, dtype=torch.uint8).unsqueeze(1).repeat(1, size)]
        buffer = torch.full_like(weights[0], 99)
        for slot in np.flatnonzero(old != new).tolist():
            buffer[slot] = int(new[slot])
        from_buffer._move_from_buffer(weights, [buffer], Received.of(old, new), new, 0)
        assert weights[0][:, 0].tolist() == new.tolist()
        assert weights[0][:, -1].tolist() == new.tolist()
