# SPDX-License-Identifier: Apache-2.0
"""Releases of vLLM that never were: each changes what stands behind a signature."""

import copy
import functools
from typing import Any

from vllm.distributed.eplb import eplb_state

_MOVE = "rearrange_expert_weights_inplace"


def moves_nothing_on_rank_1(rank: int) -> None:
    original = getattr(eplb_state, _MOVE)

    @functools.wraps(original)
    def move(old: Any, new: Any, weights: Any, *args: Any) -> None:
        copies = [copy.copy(layer) for layer in weights]
        for layer in copies:
            layer[:] = [tensor.clone() for tensor in layer]
        original(old, new, copies if rank == 1 else weights, *args)

    setattr(eplb_state, _MOVE, move)


def swaps_two_experts_of_the_last_layer_on_the_way_back(rank: int) -> None:
    original = getattr(eplb_state, _MOVE)
    calls = 0

    @functools.wraps(original)
    def move(old: Any, new: Any, weights: Any, *args: Any) -> None:
        nonlocal calls
        original(old, new, weights, *args)
        calls += 1
        if calls == 2 and rank == 0:
            for tensor in weights[-1]:
                tensor[[0, 1]] = tensor[[1, 0]]

    setattr(eplb_state, _MOVE, move)


def commits_nothing(rank: int) -> None:
    @functools.wraps(eplb_state.EplbState.rearrange)
    def rearrange(self: Any, *args: Any, **kwargs: Any) -> None:
        return

    eplb_state.EplbState.rearrange = rearrange


def fails_on_rank_1(rank: int) -> None:
    original = getattr(eplb_state, _MOVE)

    @functools.wraps(original)
    def move(*args: Any) -> None:
        if rank == 1:
            raise TypeError("an argument of another kind")
        original(*args)

    setattr(eplb_state, _MOVE, move)


def forgets_replica_counts_on_rank_1(rank: int) -> None:
    original = eplb_state.EplbState.rearrange

    @functools.wraps(original)
    def rearrange(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for model_state in self.model_states.values() if rank == 1 else ():
            model_state.logical_replica_count[1].zero_()

    eplb_state.EplbState.rearrange = rearrange
