# SPDX-License-Identifier: Apache-2.0
"""Override of the sum by which ranks know that a layer has come to all of them.

vLLM adds one int32 over all EP ranks in each step of an async rearrangement: 1 where the layer has
come. Higher digits of the same number say that it has failed on a rank, or that a rank's worker
has ended or stands still. A sum with such a digit is never the number of ranks, and all ranks see
it in the same step.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.distributed import ReduceOp, all_reduce
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.overrides.override import Override

_DIGIT = 1 << 10
"""Ranks that can be counted: an int32 has room for three digits."""
_LONG_AGO = -(1 << 60)
"""Of vLLM's step counter: no rearrangement is due."""

_State = "vllm.distributed.eplb.eplb_state:EplbState"


class Votes(NamedTuple):
    """Ranks of whom something is so."""

    ready: int
    """The layer has come, or will not."""
    failed: int
    """It will not."""
    off: int
    """Their worker has ended or stands still."""

    @classmethod
    def of(cls, total: int) -> "Votes":
        """Read a sum of `number`s."""
        return cls(total % _DIGIT, total // _DIGIT % _DIGIT, total // _DIGIT**2)

    @property
    def number(self) -> int:
        """What is added up."""
        return self.ready + self.failed * _DIGIT + self.off * _DIGIT**2


def _override_all_ranks_ready(original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def all_ranks_ready(self: Any, model_state: Any) -> bool:
        group = get_ep_group().cpu_group
        if group.size() >= _DIGIT:
            return original(self, model_state)
        session = session_of(self)
        carrier = session.carrier_of(model_state)
        ready = _has_come(model_state)
        off = session.asks_to_turn_off()
        with session.boards.model.during("waiting for ranks"):
            mine = Votes(int(ready), int(ready and carrier.failure is not None), int(off)).number
            total = torch.tensor([mine], dtype=torch.int32)
            all_reduce(total, op=ReduceOp.SUM, group=group)
        votes = Votes.of(int(total))
        if votes.off:
            turn_off(self, session)
            return False
        if votes.ready < group.size():
            return False
        if votes.failed:
            _give_up(session, model_state)
        return not votes.failed

    return all_ranks_ready


def turn_off(state: Any, session: Session) -> None:
    """Stop EPLB in this step on all ranks: committed layers stay, and no step pays for it again.

    What other threads still write, and the results that wait, are left alone: the placement in
    force needs none of them.
    """
    for model_state in state.model_states.values():
        model_state.rebalanced = False
        if hasattr(model_state, "pending_global_ready_check"):  # 0.18 and 0.19
            model_state.pending_global_ready_check = False
    state.expert_rearrangement_step = _LONG_AGO
    if getattr(state, "should_record_tensor", None) is not None:
        state.should_record_tensor.fill_(False)
    session.turned_off()


def _give_up(session: Session, model_state: Any) -> None:
    """End the rearrangement of a model in this step on all ranks; its worker goes on to the last
    layer, as vLLM's loop expects, and moves nothing."""
    carrier = session.carrier_of(model_state)
    carrier.failure = session.reasons()
    carrier.given_up = True
    session.give_up(model_state, carrier.failure)
    last = model_state.model.num_moe_layers - 1
    if not hasattr(model_state, "pending_result"):
        _pass_over_before_0_20(model_state, last)
        return
    result = model_state.pending_result
    if result.layer_idx == last:
        model_state.rebalanced = False
    session.boards.worker.enter("idle" if result.layer_idx == last else "waiting for ranks")
    model_state.pending_result = None
    result.consumed_event.record()


def _pass_over_before_0_20(model_state: Any, last: int) -> None:
    """Let the worker go to the last layer, or no further."""
    with model_state.buffer_lock:
        ended = model_state.layer_to_transfer >= last
        model_state.layer_to_transfer = 0 if ended else last
        model_state.ep_buffer_ready = 0
        if ended:
            model_state.new_physical_to_logical_map = None
            model_state.rebalanced = model_state.pending_global_ready_check = False


def _has_come(model_state: Any) -> bool:
    if hasattr(model_state, "pending_result"):
        return model_state.pending_result is not None
    return bool(model_state.ep_buffer_ready)


OVERRIDES = tuple(
    Override(
        target=f"{_State}.{name}",
        signature="(self, model_state)",
        kind="replace",
        replace=_override_all_ranks_ready,
        fixes="Where a layer never comes to one rank, because its worker has ended or stands "
        "still, all ranks ask each other in every step for ever (vLLM #57883): nothing moves any "
        "more, the step counter runs away, and nobody is told.",
        delete_when="vLLM ends a rearrangement that has failed on any rank.",
        releases=releases,
    )
    for name, releases in (
        ("_all_ranks_buffer_ready", "<0.20"),
        ("_all_ranks_result_ready", ">=0.20"),
    )
)
