# SPDX-License-Identifier: Apache-2.0
"""Experts leave the transfer buffer as vLLM's own code takes them out of it."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.distributed.eplb.rebalance_execute import TransferMetadata, move_from_buffer

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.overrides.binding import find_mismatches
from vllm_eplb_plugin.overrides.override import select
from vllm_eplb_plugin.transfer import from_buffer

KINDS = ("unchanged", "local", "remote", "empty", "lost")


@st.composite
def transfers(draw: st.DrawFn) -> tuple[TransferMetadata, np.ndarray, int]:
    """A layer of two ranks whose buffer was filled: what was filled, the new map, the rank."""
    size, ep_rank = draw(st.integers(1, 12)), draw(st.integers(0, 1))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=size, max_size=size))
    # Few experts, so that several slots get the same one.
    experts = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    primary = np.zeros(size, bool)
    first_row: dict[int, int] = {}
    for row, (kind, expert) in enumerate(zip(kinds, experts, strict=True)):
        if kind == "remote" and expert not in first_row:
            first_row[expert] = row
            primary[row] = True
    new = np.full(2 * size, 99)
    new[ep_rank * size : (ep_rank + 1) * size] = [
        {"empty": -1, "lost": 7}.get(kind, expert)
        for kind, expert in zip(kinds, experts, strict=True)
    ]
    received, rows = np.full(size, -1, np.int64), np.full(size, -1, np.int32)
    received[: len(first_row)], rows[: len(first_row)] = list(first_row), list(first_row.values())
    metadata = TransferMetadata(
        is_unchanged=np.array([kind == "unchanged" for kind in kinds]),
        is_received_locally=np.array([kind == "local" for kind in kinds]),
        recv_primary_mask=primary,
        recv_count=len(first_row),
        recv_expert_ids=received,
        recv_dst_rows=rows,
    )
    return metadata, new, ep_rank


@given(transfers())
@settings(max_examples=500)
def test_every_slot_gets_the_row_that_vllm_s_own_code_gives_it(
    case: tuple[TransferMetadata, np.ndarray, int],
) -> None:
    metadata, new, ep_rank = case
    size = metadata.is_unchanged.shape[0]
    weights = [torch.arange(size * 6.0).reshape(size, 2, 3), torch.arange(size) * 10]
    buffers = [-1 - tensor for tensor in weights]
    theirs = [tensor.clone() for tensor in weights]
    move_from_buffer(theirs, buffers, metadata, new, ep_rank)
    from_buffer._move_from_buffer(weights, buffers, metadata, new, ep_rank)
    for seen, expected in zip(weights, theirs, strict=True):
        assert torch.equal(seen, expected)


def test_the_override_fits_the_installed_vllm() -> None:
    release = installed_support().release
    assert len(select(from_buffer.OVERRIDES, release)) == 2
    assert find_mismatches(select(from_buffer.OVERRIDES, release)) == []
