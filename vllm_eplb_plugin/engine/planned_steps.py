# SPDX-License-Identifier: Apache-2.0
"""Overrides by which the planner counts loads, looks at them, and is asked when to plan."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.first_placement import is_under_way
from vllm_eplb_plugin.engine.planner import Planner
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.observe.events import Trigger
from vllm_eplb_plugin.overrides.override import Override

_STATE = "vllm.distributed.eplb.eplb_state"
_INTERVAL: Trigger = "interval"


def before_step(state: Any, session: Session, is_dummy: bool, log_stats: bool) -> Trigger:
    """Count the load of a step, and set vLLM's counter if a plan is due, not needed or not wanted.

    Returns:
        Why vLLM rearranges in this step, if it does.
    """
    planner, commands, trigger = session.planner, session.commands, _INTERVAL
    if (planner is None and commands is None) or state.expert_rearrangement_step < 0:
        return trigger  # the latter carries a rearrangement to its end (`first_placement`)
    if session.warm_start is not None:
        session.warm_start.return_to_it(state)
    if planner is not None and planner.counts:
        trigger = _count_and_look(state, planner, is_dummy, log_stats)
    return trigger if commands is None else commands.before_step(state, trigger)


def _count_and_look(state: Any, planner: Planner, is_dummy: bool, log_stats: bool) -> Trigger:
    step = session_of(state).rearrangements.step
    planner.step(step, state.model_states.values(), not is_dummy and _records(state, log_stats))
    if planner.looks is None:
        return "interval"
    if is_under_way(state):
        planner.looks.rearranging(step)
        return "interval"
    reason = planner.look(step, state.model_states.values(), get_ep_group().device_group)
    last = state.expert_rearrangement_step_interval - 1
    if reason is not None:
        state.expert_rearrangement_step = last
        return reason
    if state.expert_rearrangement_step >= last and planner.looks.is_balanced:
        state.expert_rearrangement_step = -1
    return "interval"


def _records(state: Any, log_stats: bool) -> bool:
    """Whether vLLM counts this step in its window; before 0.20 it counts all."""
    ask = getattr(state, "_should_record_current_step", None)
    return True if ask is None else bool(ask(log_stats=log_stats))


def _override_allreduce(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _allreduce_list(self: Any, tensor_list: list[torch.Tensor]) -> list[torch.Tensor]:
        planner = session_of(self).planner
        if planner is not None and planner.takes_loads:
            return planner.take_loads(get_ep_group().device_group)
        answer: list[torch.Tensor] = original(self, tensor_list)
        return answer

    return _allreduce_list


def _override_should_record(original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def _should_record_current_step(self: Any, log_stats: bool = False) -> bool:
        session = session_of(self)
        planner = session.planner
        looks = planner is not None and planner.counts and planner.looks is not None
        return looks or session.commands is not None or original(self, log_stats)

    return _should_record_current_step


OVERRIDES = (
    Override(
        target=f"{_STATE}:EplbState._allreduce_list",
        signature="(self, tensor_list)",
        kind="replace",
        replace=_override_allreduce,
        fixes="The whole load window is mapped by the placement of the moment of planning, so what "
        "was counted before a commit is credited to other experts; and a policy sees no time. Only "
        "with the setting planning.",
        delete_when="vLLM counts logical experts, and hands its policies the window.",
    ),
    Override(
        target=f"{_STATE}:EplbState._should_record_current_step",
        signature="(self, log_stats=False)",
        kind="replace",
        replace=_override_should_record,
        fixes="No load is counted in the first steps of an interval, so nothing tells that a plan "
        "is due, and an operator's would be of old loads. Only with planning.trigger or control.",
        delete_when="vLLM can plan between its intervals.",
        releases=">=0.20",
    ),
)
