# SPDX-License-Identifier: Apache-2.0
"""Overrides of sleep and wake-up: what EPLB keeps in memory that sleep drops.

vLLM allocates the maps, the load window and all else of an `EplbState` in the pool of the weights.
Level 1 copies that pool to the host and back. Level 2 drops it and restores the buffers of the
model only, which these tensors are not.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.first_placement import (
    first_placement,
    is_under_way,
    settle,
    start_window_anew,
)
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.engine.weight_updates import state_of
from vllm_eplb_plugin.overrides.override import Override

_Method = Callable[..., Any]
_NOT_KEPT = ("expert_buffer", "expert_load_window")
"""What the next transfer or `start_window_anew` writes anyway."""


@dataclass(frozen=True)
class Kept:
    """A tensor whose memory is dropped, and what was in it."""

    tensor: torch.Tensor
    content: torch.Tensor
    """On the CPU."""


def keep(state: Any) -> None:
    """Copy to the host what sleep drops and a reload does not bring back."""
    session_of(state).asleep = [Kept(tensor, tensor.cpu().clone()) for tensor in _tensors(state)]


def restore(state: Any) -> None:
    """Put back what was kept, and the first placement, where the reload that follows puts weights.

    Addresses have stayed: CUDA graphs and the router read what is written here.
    """
    session, group = session_of(state), get_ep_group().cpu_group
    kept, session.asleep = session.asleep, None
    with torch.inference_mode():
        for one in kept:
            one.tensor.copy_(one.content)
        for model_state in state.model_states.values():
            session.committer_of(model_state).commit(first_placement(model_state))
            session.tell_placement(model_state, group)
        start_window_anew(state)
    session.weights_replaced()


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    for owner in (state, *state.model_states.values()):
        for name, value in vars(owner).items():
            several = value if isinstance(value, list) else [value]
            if name not in _NOT_KEPT:
                yield from (tensor for tensor in several if isinstance(tensor, torch.Tensor))


def _override_sleep(original: _Method) -> _Method:
    @functools.wraps(original)
    def sleep(self: Any, level: int = 1) -> None:
        state = state_of(self)
        if state is not None and is_under_way(state):
            # The async worker would read memory that is gone.
            settle(state, "sleep")
        # vLLM copies the weights' pool to the host at level 1 only.
        if state is not None and level != 1 and session_of(state).asleep is None:
            keep(state)
        original(self, level)

    return sleep


def _override_discard(original: _Method) -> _Method:
    @functools.wraps(original)
    def discard(self: Any, tags: tuple[str, ...]) -> None:
        state = state_of(self)
        if state is not None and "weights" in tags:
            if is_under_way(state):
                settle(state, "discard")
            if session_of(state).asleep is None:
                keep(state)
        original(self, tags)

    return discard


def _override_wake_up(original: _Method) -> _Method:
    @functools.wraps(original)
    def wake_up(self: Any, tags: list[str] | None = None) -> None:
        original(self, tags)
        state = state_of(self)
        if state is not None and session_of(state).asleep and (tags is None or "weights" in tags):
            restore(state)

    return wake_up


_WORKER = "vllm.v1.worker.gpu_worker:Worker"
_FIXES = (
    "Level 2 drops the maps that the router reads together with the weights and restores buffers "
    "of the model only: tokens go to any slot, without a word. With any level, the async worker "
    "reads memory that is gone."
)
_DELETE_WHEN = "vLLM keeps EPLB's tensors over a sleep and ends async transfers before."

OVERRIDES = tuple(
    Override(
        target=f"{_WORKER}.{name}",
        signature=signature,
        kind="hook",
        replace=replace,
        fixes=_FIXES,
        delete_when=_DELETE_WHEN,
        releases=releases,
    )
    for name, signature, replace, releases in (
        ("sleep", "(self, level=1)", _override_sleep, ""),
        ("discard", "(self, tags)", _override_discard, ">=0.31"),
        ("wake_up", "(self, tags=None)", _override_wake_up, ""),
    )
)
