# SPDX-License-Identifier: Apache-2.0
"""Overrides of model runner V1, which steps EPLB where it samples, and in dummy batches.

All EP ranks of a pipeline stage have to step equally often, because a step may be a collective:
once for every forward pass, whether a rank serves or, with DP, idles along.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from vllm.sequence import IntermediateTensors

from vllm_eplb_plugin.engine.stages import (
    profile_with_other_stages,
    refuse_model_without_experts,
)
from vllm_eplb_plugin.overrides.override import Override


def _override_execute_model(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute_model(
        self: Any, scheduler_output: Any, intermediate_tensors: IntermediateTensors | None = None
    ) -> Any:
        output = original(self, scheduler_output, intermediate_tensors)
        if isinstance(output, IntermediateTensors):  # of a stage that will not sample
            with torch.inference_mode():
                self.eplb_step()
        return output

    return execute_model


def _override_pool(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _pool(
        self: Any,
        hidden_states: torch.Tensor,
        num_scheduled_tokens: int,
        num_scheduled_tokens_np: Any,
        kv_connector_output: Any,
    ) -> Any:
        output = original(
            self, hidden_states, num_scheduled_tokens, num_scheduled_tokens_np, kv_connector_output
        )
        self.eplb_step()
        return output

    return _pool


def _eplb_step(self: Any, is_dummy: bool = False, is_profile: bool = False) -> None:
    if not self.parallel_config.enable_eplb or self.eep_eplb_suppressed:
        return
    if self.eplb_state.model_states:
        log_stats = self.parallel_config.eplb_config.log_balancedness
        self.eplb_state.step(is_dummy, is_profile, log_stats=log_stats)
    else:
        refuse_model_without_experts(type(self.get_model()).__name__)
        if is_profile:
            profile_with_other_stages(self.eplb_state, lambda: None)


_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_DELETE_WHEN = "Model runner V1 steps EPLB after every forward pass, or is gone."

OVERRIDES = (
    Override(
        target=f"{_RUNNER}.execute_model",
        signature="(self, scheduler_output, intermediate_tensors=None)",
        kind="hook",
        replace=_override_execute_model,
        fixes="With pipeline parallelism only the last stage steps EPLB: on the others no expert "
        "ever moves, without a word; with DP an idle rank's dummy batch does step there, and its "
        "next rearrangement waits for ranks that never come.",
        delete_when=_DELETE_WHEN,
    ),
    Override(
        target=f"{_RUNNER}._pool",
        signature="(self, hidden_states, num_scheduled_tokens, num_scheduled_tokens_np, "
        "kv_connector_output)",
        kind="hook",
        replace=_override_pool,
        fixes="A model that pools never steps EPLB, except in an idle rank's dummy batch, as on a "
        "pipeline's stages before the last.",
        delete_when=_DELETE_WHEN,
    ),
    Override(
        target=f"{_RUNNER}.eplb_step",
        signature="(self, is_dummy=False, is_profile=False)",
        kind="replace",
        replace=lambda _: _eplb_step,
        fixes="A bare assertion ends the start of a pipeline stage without MoE layers, and that "
        "of a model without any.",
        delete_when=_DELETE_WHEN,
    ),
)
