# SPDX-License-Identifier: Apache-2.0
"""What stands for the transfer of a layer that does not change, and when it does."""

import inspect
from dataclasses import asdict
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from vllm.distributed.eplb.rebalance_execute import move_to_buffer

from vllm_eplb_plugin.engine import unchanged_layers
from vllm_eplb_plugin.engine.unchanged_layers import Handover
from vllm_eplb_plugin.transfer.from_buffer import rows_to_copy
from vllm_eplb_plugin.transfer.received import Received
from vllm_eplb_plugin.transfer.unchanged_layers import unless_unchanged

ROW = [3, 0, 1, 2, 1, 0]


def move(original: Any, old: list[int], new: list[int]) -> Any:
    """One of two ranks, with whatever else the installed release asks for."""
    others = dict.fromkeys(inspect.signature(move_to_buffer).parameters)
    arguments = {
        **others,
        "num_local_experts": 3,
        "old_indices": np.array(old),
        "new_indices": np.array(new),
        "expert_weights": [torch.zeros(3, 2)],
        "expert_weights_buffers": [torch.zeros(3, 2)],
        "ep_rank": 1,
        "communicator": MagicMock(),
    }
    return original(**arguments)


def test_it_is_what_vllm_says_of_a_layer_that_does_not_change() -> None:
    theirs = asdict(move(move_to_buffer, ROW, ROW))
    ours = asdict(move(unless_unchanged(MagicMock()), ROW, ROW))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
        assert np.asarray(ours[name]).dtype == np.asarray(value).dtype


def test_nothing_is_copied_for_it() -> None:
    assert rows_to_copy(Received.nothing(3), np.array(ROW), 1) == []


@pytest.mark.parametrize(
    "new",
    [
        pytest.param([3, 0, 1, 2, 0, 1], id="only on this rank"),
        pytest.param([0, 3, 1, 2, 1, 0], id="only on the other rank"),
        pytest.param([3, 0, 1, -1, -1, -1], id="elastic EP takes this rank away"),
        pytest.param(ROW[:3], id="another number of slots"),
    ],
)
def test_a_layer_that_changes_on_any_rank_is_moved_by_vllm(new: list[int]) -> None:
    original = MagicMock()
    for old, row in ((ROW, new), (new, ROW)):
        assert move(unless_unchanged(original), old, row) is original.return_value
    assert original.call_count == 2


def run_worker(handover: Handover | None, layer: int, event: MagicMock) -> Any:
    original = MagicMock(return_value="the result")
    unchanged_layers._now.set(handover)
    hand_over = unchanged_layers._override_result(original)
    return hand_over(
        layer_idx=layer,
        new_physical_to_logical_map=torch.tensor(ROW),
        transfer_metadata=None,
        consumed_event=event,
    )


def test_the_worker_goes_on_at_once_on_its_own_stream() -> None:
    old = torch.tensor([ROW, ROW, ROW])
    new = torch.tensor([ROW, ROW[::-1], ROW])
    carrier, event = MagicMock(given_up=False), MagicMock()
    handover = Handover(old, new, MagicMock(), carrier, "its stream")
    assert run_worker(handover, 0, event) is None
    event.record.assert_called_once_with("its stream")
    assert run_worker(handover, 1, event) == "the result"
    assert run_worker(handover, 2, event) == "the result"
    event.record.assert_called_once()
    carrier.given_up = True  # nothing more moves, and vLLM's loop ends with the last layer
    assert run_worker(handover, 1, event) is None
    assert run_worker(handover, 2, event) == "the result"


def test_every_layer_is_handed_over_by_a_worker_that_does_not_say_what_changes() -> None:
    assert run_worker(None, 0, MagicMock()) == "the result"
