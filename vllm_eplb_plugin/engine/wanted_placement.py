# SPDX-License-Identifier: Apache-2.0
"""Carry out a placement at once, by vLLM's own `rearrange`, whatever the mode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.eplb import eplb_state

from vllm_eplb_plugin.engine.session import session_of


def rearrange_to(state: Any, placements: Sequence[torch.Tensor]) -> None:
    """Move experts and commit, on the calling thread, whatever the mode.

    All ranks of the group call together, while no async rearrangement is under way.

    Args:
        state: An `EplbState`.
        placements: For each of its models ``[layers, physical]`` on the CPU, alike on all ranks.
    """
    rearrange_at_once(state, _Wanted(iter(placements)))


def rearrange_at_once(state: Any, policy: Any) -> None:
    """Plan by a policy, move experts and commit, as `rearrange_to`."""
    session = session_of(state)
    is_async = state.is_async
    for model_state in state.model_states.values():
        # The async worker leaves its own stream there, and sets it again before it transfers.
        if (communicator := getattr(model_state, "communicator", None)) is not None:
            communicator.set_stream(None)
    session.wanted, state.is_async = policy, False
    try:
        with _whatever_is_gained():
            state.rearrange()
    finally:
        session.wanted, state.is_async = None, is_async


@dataclass(frozen=True)
class _Wanted:
    """A policy that knows already what it wants."""

    placements: Iterator[torch.Tensor]

    def rebalance_experts(self, *_: Any) -> torch.Tensor:
        # vLLM plans its models in their order.
        return next(self.placements)


@dataclass(frozen=True)
class _AnyOtherPlatform:
    platform: Any

    def is_rocm(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.platform, name)


@contextmanager
def _whatever_is_gained() -> Iterator[None]:
    """On ROCm, vLLM (0.27.1 and later) leaves out a placement that balances no better."""
    platform = getattr(eplb_state, "current_platform", None)
    if platform is None or not platform.is_rocm():
        yield
        return
    eplb_state.current_platform = _AnyOtherPlatform(platform)
    try:
        yield
    finally:
        eplb_state.current_platform = platform
