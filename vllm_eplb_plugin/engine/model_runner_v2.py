# SPDX-License-Identifier: Apache-2.0
"""Overrides of model runner V2's own EPLB controller, vLLM 0.19 and later."""

import functools
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.engine.stages import (
    profile_with_other_stages,
    refuse_model_without_experts,
)
from vllm_eplb_plugin.overrides.override import Override


def _override_maybe_start_async_loop(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def maybe_start_async_loop(
        self: Any, eplb_models_added: bool, load_dummy_weights: bool = False
    ) -> None:
        if self.state is not None and not eplb_models_added and not load_dummy_weights:
            refuse_model_without_experts()
        original(self, eplb_models_added, load_dummy_weights)

    return maybe_start_async_loop


def _override_maybe_register_model(original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def maybe_register_model(
        self: Any, model: Any, model_config: Any, load_dummy_weights: bool
    ) -> bool:
        added = original(self, model, model_config, load_dummy_weights)
        if self.state is not None and not self.state.model_states and not load_dummy_weights:
            refuse_model_without_experts(type(model).__name__)
        return added

    return maybe_register_model


def _override_step(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def step(self: Any, is_dummy: bool = False, is_profile: bool = False) -> None:
        original(self, is_dummy, is_profile)
        if is_profile and self.state is not None and not self.state.model_states:
            profile_with_other_stages(self.state, lambda: None)

    return step


_CONTROLLER = "vllm.v1.worker.gpu.eplb_utils:EPLBController"
_FIXES = (
    "With model runner V2, --enable-eplb on a model that cannot use it is silently without effect."
)
_DELETE_WHEN = "vLLM refuses --enable-eplb for such a model."

OVERRIDES = (
    Override(
        target=f"{_CONTROLLER}.maybe_register_model",
        signature="(self, model, model_config, load_dummy_weights)",
        kind="hook",
        replace=_override_maybe_register_model,
        fixes=_FIXES,
        delete_when=_DELETE_WHEN,
        releases=">=0.19,<0.32",
    ),
    Override(
        target=f"{_CONTROLLER}.maybe_start_async_loop",
        signature="(self, eplb_models_added, load_dummy_weights=False)",
        kind="hook",
        replace=_override_maybe_start_async_loop,
        fixes=_FIXES,
        delete_when=_DELETE_WHEN,
        releases=">=0.32",
    ),
    Override(
        target=f"{_CONTROLLER}.step",
        signature="(self, is_dummy=False, is_profile=False)",
        kind="hook",
        replace=_override_step,
        fixes="In the profile run a pipeline stage with experts waits at a barrier for ever, if "
        "another stage has none.",
        delete_when="vLLM's profile run passes no barrier over all stages.",
        releases=">=0.19",
    ),
)
