# SPDX-License-Identifier: Apache-2.0
"""Overrides for vLLM 0.32: sync and async, model runners V1 and V2, drafters, elastic EP."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed import ProcessGroup
from vllm.config.vllm import get_current_vllm_config_or_none
from vllm.distributed.parallel_state import get_ep_group, get_eplb_group
from vllm.logger import init_logger

from vllm_eplb_plugin.install import Override, bind
from vllm_eplb_plugin.loopback import cpu_v032, gate
from vllm_eplb_plugin.placement.maps import validate_placement
from vllm_eplb_plugin.planning.guard import GuardedPolicy
from vllm_eplb_plugin.releases import Overrides
from vllm_eplb_plugin.settings import load_settings
from vllm_eplb_plugin.state.commit import (
    commit_layer,
    commit_model,
    narrow_logical_to_physical_map,
)
from vllm_eplb_plugin.state.errors import ModelWithoutEplbError
from vllm_eplb_plugin.state.observer import Observer

logger = init_logger("vllm.eplb_plugin")

_STATE = "vllm.distributed.eplb.eplb_state"
_Method = Callable[..., Any]


def _override_init(original: _Method) -> _Method:
    @functools.wraps(original)
    def __init__(self: Any, parallel_config: Any, device: torch.device) -> None:  # noqa: N807
        config = get_current_vllm_config_or_none()
        settings = load_settings(config.additional_config if config is not None else None)
        if settings.enabled:
            if settings.check_weights and parallel_config.enable_elastic_ep:
                raise ValueError(
                    "check_weights compares with weights gathered at load, which elastic EP's new "
                    "ranks do not take part in: turn off check_weights or elastic EP"
                )
            bind((*OVERRIDES.state, *OVERRIDES.runner))
            self.eplb_observer = Observer(settings, _ep_rank())
        else:
            logger.warning("vllm-eplb-plugin is turned off by its settings: EPLB is vLLM's own.")
        original(self, parallel_config, device)

    return __init__


def _ep_rank() -> int:
    try:
        rank: int = get_ep_group().rank_in_group
    except AssertionError as error:  # vLLM makes no EP group for a model without experts
        raise ModelWithoutEplbError("the model") from error
    return rank


def _override_policy(_: None) -> property:
    def get(self: Any) -> GuardedPolicy:
        def group() -> ProcessGroup:
            # The async worker must not use the group that the main thread is using.
            in_worker = threading.current_thread() is self.async_worker
            coordinator = get_eplb_group() if in_worker else get_ep_group()
            cpu_group: ProcessGroup = coordinator.cpu_group
            return cpu_group

        elastic = self.parallel_config.enable_elastic_ep
        return GuardedPolicy(self.eplb_policy, group, self.eplb_observer.planned, elastic)

    def put(self: Any, policy: Any) -> None:
        self.eplb_policy = policy

    return property(get, put, doc="The policy, guarded; set it to replace what is guarded.")


def _override_add_model(original: _Method) -> _Method:
    @functools.wraps(original)
    def add_model(self: Any, model: Any, model_config: Any, model_name: str | None = None) -> None:
        original(self, model, model_config, model_name)
        model_state = self.model_states[model_config.compute_hash()]
        model_state.eplb_observer = self.eplb_observer
        capacity = model_state.physical_to_logical_map_buffer.shape[1]
        elastic = self.parallel_config.enable_elastic_ep
        width = capacity if elastic else model.num_redundant_experts + 1
        narrow_logical_to_physical_map(model_state, width)
        self.eplb_observer.gather_weights(model_state, get_eplb_group().cpu_group)

    return add_model


def _override_step(original: _Method) -> _Method:
    @functools.wraps(original)
    def step(
        self: Any, is_dummy: bool = False, is_profile: bool = False, log_stats: bool = False
    ) -> None:
        if not is_profile:
            self.eplb_observer.step += 1
        original(self, is_dummy, is_profile, log_stats)

    return step


def _override_rearrange(original: _Method) -> _Method:
    @functools.wraps(original)
    def rearrange(
        self: Any,
        is_profile: bool = False,
        rank_mapping: dict[int, int] | None = None,
        use_last_expert_load: bool = False,
    ) -> None:
        observer: Observer = self.eplb_observer
        observer.profile(is_profile)
        if not is_profile:
            names = [model_state.model_name for model_state in self.model_states.values()]
            observer.begin("async" if self.is_async else "sync", names)
        original(self, is_profile, rank_mapping, use_last_expert_load)

    return rearrange


def _override_commit_maps(_: _Method) -> _Method:
    def _commit_eplb_maps(model_state: Any, new_physical_to_logical_map: torch.Tensor) -> None:
        slots = new_physical_to_logical_map.shape[1]
        if slots != model_state.physical_to_logical_map.shape[1]:
            # Elastic EP: the active part of the buffer grows or shrinks.
            buffer = model_state.physical_to_logical_map_buffer
            model_state.physical_to_logical_map = buffer[:, :slots]
        commit_model(model_state, new_physical_to_logical_map)
        layers = range(model_state.model.num_moe_layers)
        model_state.eplb_observer.committed(model_state, layers)

    return _commit_eplb_maps


def _override_commit_maps_for_layer(_: _Method) -> _Method:
    def _commit_eplb_maps_for_layer(
        model_state: Any, new_physical_to_logical_map: torch.Tensor, layer: int
    ) -> None:
        commit_layer(model_state, new_physical_to_logical_map, layer)
        model_state.eplb_observer.committed(model_state, range(layer, layer + 1))

    return _commit_eplb_maps_for_layer


def _override_update_mapping(_: _Method) -> _Method:
    def update_mapping(
        self: Any, model_config: Any, expanded_physical_to_logical: torch.Tensor
    ) -> None:
        model_state = self.model_states[model_config.compute_hash()]
        slots = model_state.physical_to_logical_map.shape[1]
        new = expanded_physical_to_logical[:, :slots]
        shape = (model_state.model.num_moe_layers, slots)
        experts = model_state.model.num_logical_experts
        validate_placement(new.cpu(), shape, experts, allow_empty_slots=True)
        model_state.physical_to_logical_map_buffer.copy_(expanded_physical_to_logical)
        model_state.expert_load_pass.zero_()
        commit_model(model_state, model_state.physical_to_logical_map)

    return update_mapping


def _override_maybe_start_async_loop(original: _Method) -> _Method:
    @functools.wraps(original)
    def maybe_start_async_loop(
        self: Any, eplb_models_added: bool, load_dummy_weights: bool = False
    ) -> None:
        if self.state is not None and not eplb_models_added and not load_dummy_weights:
            raise ModelWithoutEplbError("the model")
        original(self, eplb_models_added, load_dummy_weights)

    return maybe_start_async_loop


OVERRIDES = Overrides(
    entry=(
        gate.CREATE_ENGINE_CONFIG,
        Override(
            target=f"{_STATE}:EplbState.__init__",
            signature="(self, parallel_config, device)",
            replace=_override_init,
            fixes="Nothing of vLLM: settings are known only here, in the process that needs them.",
            delete_when="vLLM hands --additional-config to its plugins.",
        ),
    ),
    state=(
        Override(
            target=f"{_STATE}:EplbState.policy",
            signature=None,
            replace=_override_policy,
            fixes="A policy's result moves weights without a check, and ranks whose results "
            "differ wait for each other for ever.",
            delete_when="vLLM validates placements on all ranks.",
        ),
        Override(
            target=f"{_STATE}:EplbState.add_model",
            signature="(self, model, model_config, model_name=None)",
            replace=_override_add_model,
            fixes="l2p has 1024 columns whatever the number of redundant experts.",
            delete_when="vLLM allocates l2p by num_redundant_experts.",
        ),
        Override(
            target=f"{_STATE}:EplbState.step",
            signature="(self, is_dummy=False, is_profile=False, log_stats=False)",
            replace=_override_step,
            fixes="vLLM's own step counter starts again at every rearrangement.",
            delete_when="vLLM reports rearrangements with a step of its own.",
        ),
        Override(
            target=f"{_STATE}:EplbState.rearrange",
            signature="(self, is_profile=False, rank_mapping=None, use_last_expert_load=False)",
            replace=_override_rearrange,
            fixes="Whether and when experts moved is told by log lines only.",
            delete_when="vLLM reports rearrangements.",
        ),
        Override(
            target=f"{_STATE}:_commit_eplb_maps",
            signature="(model_state, new_physical_to_logical_map)",
            replace=_override_commit_maps,
            fixes="48 to 56 ms on the thread that runs the model, in Python over every slot.",
            delete_when="vLLM derives l2p and replica counts on the device.",
        ),
        Override(
            target=f"{_STATE}:_commit_eplb_maps_for_layer",
            signature="(model_state, new_physical_to_logical_map, layer)",
            replace=_override_commit_maps_for_layer,
            fixes="11 to 22 ms a layer on the thread that runs the model.",
            delete_when="vLLM derives l2p and replica counts on the device.",
        ),
        Override(
            target=f"{_STATE}:EplbState.update_mapping",
            signature="(self, model_config, expanded_physical_to_logical)",
            replace=_override_update_mapping,
            fixes="Elastic EP's new ranks take over a map unchecked, derived in Python.",
            delete_when="vLLM derives l2p and replica counts on the device.",
        ),
    ),
    runner=(
        Override(
            target="vllm.v1.worker.gpu.eplb_utils:EPLBController.maybe_start_async_loop",
            signature="(self, eplb_models_added, load_dummy_weights=False)",
            replace=_override_maybe_start_async_loop,
            fixes="With model runner V2, --enable-eplb on a model that cannot use it is silently "
            "without effect.",
            delete_when="vLLM refuses --enable-eplb for such a model.",
        ),
    ),
    loopback=cpu_v032.OVERRIDES,
)
