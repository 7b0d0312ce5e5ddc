# SPDX-License-Identifier: Apache-2.0
"""Overrides of vLLM's `EplbState` that every release gets, sync and async."""

import functools
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.distributed import ProcessGroup
from vllm.distributed.eplb.policy import DefaultEplbPolicy
from vllm.distributed.parallel_state import (
    get_ep_group,
    get_eplb_group,
    get_pp_group,
    get_world_group,
)

from vllm_eplb_plugin.engine.common_settings import agree_when_all_come
from vllm_eplb_plugin.engine.load_recorder import make_recorder
from vllm_eplb_plugin.engine.planned_steps import before_step
from vllm_eplb_plugin.engine.planner import Asked, Planner
from vllm_eplb_plugin.engine.refusals import (
    ModelWithoutEplbError,
    refuse_with_elastic_ep,
    refuse_with_stages,
)
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.engine.stages import profile_with_other_stages
from vllm_eplb_plugin.engine.step_times import write_step_times
from vllm_eplb_plugin.engine.switch_interval import limit_switch_interval
from vllm_eplb_plugin.engine.warm_start import WarmStart
from vllm_eplb_plugin.observe.events import Mode
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.planning.guard import GuardedPolicy, Plan
from vllm_eplb_plugin.planning.policies.fastest import fastest
from vllm_eplb_plugin.settings import Settings

_STATE = "vllm.distributed.eplb.eplb_state"
_Method = Callable[..., Any]


def make_state(
    original: _Method, settings: Settings, state: Any, parallel_config: Any, device: torch.device
) -> None:
    """Stand for ``EplbState.__init__``, once everything is bound."""
    if parallel_config.enable_elastic_ep:
        refuse_with_elastic_ep(settings)
    if parallel_config.pipeline_parallel_size > 1:
        refuse_with_stages(settings)
    if parallel_config.eplb_config.use_async:
        limit_switch_interval(settings.switch_interval_ms)
    session = Session(settings, _source())
    session.rearrangements.recorder = make_recorder(
        settings, session.source, parallel_config, session.planner
    )
    session.attach(state)
    if device.type != "cpu":
        session.asker.prepare = functools.partial(torch.accelerator.set_device_index, device)
    original(state, parallel_config, device)
    # When nothing is left that might fail on this rank alone.
    agree_when_all_come(state, settings)
    if settings.planning is not None and settings.planning.initial is not None:
        session.warm_start = WarmStart(settings.planning, get_ep_group())
    if settings.step_times_dir is not None:
        write_step_times(state, settings.step_times_dir, get_world_group().rank_in_group)


def leave_state_alone(
    original: _Method, settings: Settings, state: Any, *args: Any, **kwargs: Any
) -> None:
    """Stand for ``EplbState.__init__`` where the plugin is turned off by --additional-config."""
    original(state, *args, **kwargs)
    agree_when_all_come(state, settings)
    if settings.step_times_dir is not None:
        write_step_times(state, settings.step_times_dir, get_world_group().rank_in_group)


def _source() -> Source:
    return Source(_ep_rank(), get_world_group().rank_in_group, get_pp_group().rank_in_group)


def _ep_rank() -> int:
    try:
        rank: int = get_ep_group().rank_in_group
    except AssertionError as error:  # vLLM makes no EP group for a model without experts
        raise ModelWithoutEplbError("the model") from error
    return rank


def _override_policy(_: None) -> property:
    def get(self: Any) -> GuardedPolicy:
        session, elastic = session_of(self), self.parallel_config.enable_elastic_ep

        def in_worker() -> bool:
            return threading.current_thread() is self.async_worker

        def group() -> ProcessGroup:
            # The async worker must not use the group that the main thread is using.
            coordinator = get_eplb_group() if in_worker() else get_ep_group()
            cpu_group: ProcessGroup = coordinator.cpu_group
            return cpu_group

        mode: Mode = "async" if in_worker() else "sync"
        policy = session.policy if session.wanted is None else session.wanted
        repeats = policy is session.default_policy
        if isinstance(policy, Planner):
            repeats, policy = policy.repeats_itself, policy.ask(mode)

        def planned(plan: Plan) -> None:
            session.renew_peers(group())
            origin = policy.origin if isinstance(policy, Asked) else None
            session.rearrangements.planned(plan, mode, origin)

        def within_limit(question: Callable[[], torch.Tensor]) -> torch.Tensor:
            limit = session.settings.watch.give_up_after_s
            placement: torch.Tensor = session.asker.ask(question, limit)
            return placement

        asks_again = session.settings.check_weights and repeats
        only_plans = session.rearrangements.only_plans()
        says = session.boards.here.enter
        return GuardedPolicy(
            policy, group, planned, elastic, asks_again, within_limit, says, only_plans
        )

    def put(self: Any, policy: Any) -> None:
        session = session_of(self)
        is_default = policy is DefaultEplbPolicy and session.settings.compiled_policy
        session.policy = fastest(policy) if is_default else policy
        if policy is DefaultEplbPolicy:
            session.default_policy = session.policy
            if session.planner is not None:
                session.planner.stand_for(session.policy)
                session.policy = session.planner

    return property(get, put, doc="The policy, guarded; set it to replace what is guarded.")


def _override_step(original: _Method) -> _Method:
    @functools.wraps(original)
    def step(
        self: Any, is_dummy: bool = False, is_profile: bool = False, log_stats: bool = False
    ) -> None:
        session = session_of(self)
        rearrangements = session.rearrangements
        if not is_profile:
            rearrangements.step += 1
            if session.power.state == "off":
                return
            if session.watch is None:
                session.begin_watch()
        started = time.perf_counter()
        try:
            if not is_profile:
                rearrangements.trigger = before_step(self, session, is_dummy, log_stats)
            original(self, is_dummy, is_profile, log_stats)
        except BaseException as error:
            rearrangements.fail(error, is_whole=False)
            raise
        finally:
            rearrangements.trigger = "other"
            session.seconds += time.perf_counter() - started

    return step


def follow_rearrange(original: _Method) -> _Method:
    """Follow a rearrangement from its start, in sync mode to its outcome."""

    @functools.wraps(original)
    def rearrange(self: Any, is_profile: bool = False, *args: Any, **kwargs: Any) -> Any:
        if is_profile:  # nothing moves
            profile = functools.partial(original, self, is_profile, *args, **kwargs)
            return profile_with_other_stages(self, profile)
        session = session_of(self)
        rearrangements = session.rearrangements
        session.look_before_moving(self.model_states.values(), get_ep_group().cpu_group)
        session.start("async" if self.is_async else "sync", self.model_states.values())
        counting = nullcontext() if session.planner is None else session.planner.rearranging()
        loads = session.boards.model.during("loads")
        with rearrangements.failing(is_whole=False), counting, loads:
            answer = original(self, is_profile, *args, **kwargs)
        if not self.is_async:
            # From 0.27 on, vLLM leaves out a model on ROCm whose gain is below 5 %.
            rearrangements.end_open("skipped", "vLLM found too little to gain")
        return answer

    return rearrange


def _override_drain_async(original: _Method) -> _Method:
    @functools.wraps(original)
    def drain_async(self: Any) -> None:
        rearrangements = session_of(self).rearrangements
        with rearrangements.failing(is_whole=True):
            original(self)
        rearrangements.end_open("drained")

    return drain_async


OVERRIDES = (
    Override(
        target=f"{_STATE}:EplbState.policy",
        signature=None,
        kind="replace",
        replace=_override_policy,
        fixes="A policy's result moves weights without a check, and ranks whose results differ "
        "wait for each other for ever.",
        delete_when="vLLM validates placements on all ranks.",
    ),
    Override(
        target=f"{_STATE}:EplbState.step",
        signature="(self, is_dummy=False, is_profile=False, log_stats=False)",
        kind="hook",
        replace=_override_step,
        fixes="vLLM's own step counter starts again at every rearrangement.",
        delete_when="vLLM reports rearrangements with a step of its own.",
    ),
    *(
        Override(
            target=f"{_STATE}:EplbState.rearrange",
            signature=signature,
            kind="hook",
            replace=follow_rearrange,
            fixes="Whether and when experts moved, and how it ended, is told by log lines only.",
            delete_when="vLLM reports rearrangements.",
            releases=releases,
        )
        for releases, signature in (
            (">=0.19,<0.31", "(self, is_profile=False, rank_mapping=None)"),
            (">=0.31", "(self, is_profile=False, rank_mapping=None, use_last_expert_load=False)"),
        )
    ),
    Override(
        target=f"{_STATE}:EplbState.drain_async",
        signature="(self)",
        kind="hook",
        replace=_override_drain_async,
        fixes="A rearrangement that elastic EP throws away looks like one that hangs.",
        delete_when="vLLM reports rearrangements.",
        releases=">=0.24",
    ),
)
