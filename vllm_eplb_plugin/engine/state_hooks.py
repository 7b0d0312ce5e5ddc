# SPDX-License-Identifier: Apache-2.0
"""Overrides of vLLM's `EplbState` that every release gets, sync and async."""

import functools
import threading
from collections.abc import Callable
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

from vllm_eplb_plugin.engine.announcement import announce
from vllm_eplb_plugin.engine.model_layers import LOADING_SECONDS, StateSetter, check_layers
from vllm_eplb_plugin.engine.refusals import ModelWithoutEplbError
from vllm_eplb_plugin.engine.replicas import compare_replicas
from vllm_eplb_plugin.engine.self_test import run_self_test
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.engine.step_times import write_step_times
from vllm_eplb_plugin.engine.switch_interval import limit_switch_interval
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
    if settings.check_weights and parallel_config.enable_elastic_ep:
        raise ValueError(
            "check_weights compares with weights gathered at load, which elastic EP's new "
            "ranks do not take part in: turn off check_weights or elastic EP"
        )
    if parallel_config.eplb_config.use_async:
        limit_switch_interval(settings.switch_interval_ms)
    Session(settings, _source()).attach(state)
    original(state, parallel_config, device)
    if settings.step_times_dir is not None:
        write_step_times(state, settings.step_times_dir, get_world_group().rank_in_group)


def leave_state_alone(
    original: _Method, settings: Settings, state: Any, *args: Any, **kwargs: Any
) -> None:
    """Stand for ``EplbState.__init__`` where the plugin is turned off by --additional-config."""
    original(state, *args, **kwargs)
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

        def planned(plan: Plan) -> None:
            session.rearrangements.planned(plan, "async" if in_worker() else "sync")

        return GuardedPolicy(session.policy, group, planned, elastic)

    def put(self: Any, policy: Any) -> None:
        session = session_of(self)
        is_default = policy is DefaultEplbPolicy and session.settings.compiled_policy
        session.policy = fastest(policy) if is_default else policy

    return property(get, put, doc="The policy, guarded; set it to replace what is guarded.")


def _override_add_model(original: _Method) -> _Method:
    @functools.wraps(original)
    def add_model(self: Any, model: Any, model_config: Any, *args: Any, **kwargs: Any) -> None:
        session, ranks = session_of(self), get_ep_group()
        limit = max(session.settings.rank_timeout_s, LOADING_SECONDS)

        def check() -> None:
            check_layers(self, model, ranks, limit)

        setter = StateSetter(model, _width(self, model), check)
        original(self, model, model_config, *args, **kwargs)
        model_state = self.model_states[model_config.compute_hash()]
        model_state.logical_to_physical_map = setter.logical_to_physical_map
        group = get_eplb_group().cpu_group
        if not session.settings.check_weights:
            compare_replicas(model_state, ranks, limit)
        is_drafter = getattr(model_config, "runner_type", None) == "draft"
        added = session.add(model_state, group, is_drafter)
        added.committer.commit_again()
        tried = run_self_test(self, model_state, group)
        if session.source.speaks_for_all:
            announce(session, added, self.is_async, tried)

    return add_model


def _width(state: Any, model: Any) -> int | None:
    """Columns of l2p: the most replicas that one logical expert can ever have."""
    config = state.parallel_config
    if not config.enable_elastic_ep:
        redundant: int = model.num_redundant_experts
        return redundant + 1
    # Before 0.30 nobody knows how many ranks there will be: as wide as vLLM makes it.
    if not hasattr(config, "elastic_ep_max_dp_size"):
        return None
    ranks: int = config.elastic_ep_max_dp_size * get_ep_group().world_size
    slots: int = model.num_local_physical_experts * ranks // config.data_parallel_size
    return slots


def _override_step(original: _Method) -> _Method:
    @functools.wraps(original)
    def step(
        self: Any, is_dummy: bool = False, is_profile: bool = False, log_stats: bool = False
    ) -> None:
        rearrangements = session_of(self).rearrangements
        if not is_profile:
            rearrangements.step += 1
        try:
            original(self, is_dummy, is_profile, log_stats)
        except BaseException as error:
            rearrangements.fail(error, is_whole=False)
            raise

    return step


def follow_rearrange(original: _Method) -> _Method:
    """Follow a rearrangement from its start, in sync mode to its outcome."""

    @functools.wraps(original)
    def rearrange(self: Any, is_profile: bool = False, *args: Any, **kwargs: Any) -> Any:
        if is_profile:  # nothing moves
            return original(self, is_profile, *args, **kwargs)
        session = session_of(self)
        rearrangements = session.rearrangements
        rearrangements.start("async" if self.is_async else "sync", session.moved)
        with rearrangements.failing(is_whole=False):
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
    *(
        Override(
            target=f"{_STATE}:EplbState.add_model",
            signature=signature,
            kind="replace",
            replace=_override_add_model,
            fixes="l2p has 1024 columns whatever the number of redundant experts. Weights of a "
            "dtype that the communicator cannot carry (E8M0, FP4, FP8 over gloo) end the server; "
            "layers that differ get wrong weights or end in a hang.",
            delete_when="vLLM allocates l2p by num_redundant_experts, sends bytes (0.33 does for "
            "dtypes of one byte) and refuses layers that differ.",
            releases=releases,
        )
        for releases, signature in (
            ("<0.32", "(self, model, model_config)"),
            (">=0.32", "(self, model, model_config, model_name=None)"),
        )
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
