# SPDX-License-Identifier: Apache-2.0
"""Overrides for DP+EP+EPLB on vLLM 0.18's CPU backend, bound in loopback workers only.

Its CPU experts choose, route and compute in one call, past every router. The tokens of all EP
ranks are gathered before it, so that every rank counts every token.
"""

import contextvars
import functools
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from vllm_eplb_plugin.loopback.cpu.experts import keep_local_experts, map_to_physical_and_record
from vllm_eplb_plugin.overrides.override import Override

_MOE = "vllm.model_executor.layers.fused_moe"
_RELEASES = "<0.19"

_Function = Callable[..., Any]
_layer: contextvars.ContextVar[Any] = contextvars.ContextVar("layer")


def _override_forward(original: _Function) -> _Function:
    @functools.wraps(original)
    def forward_monolithic_cpu(self: Any, layer: Any, x: Any, router_logits: Any) -> Any:
        token = _layer.set(layer)
        try:
            return original(self, layer, x, router_logits)
        finally:
            _layer.reset(token)

    return forward_monolithic_cpu


def _override_select_experts(original: _Function) -> _Function:
    @functools.wraps(original)
    def select_experts(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        weights, ids = original(*args, **kwargs)
        layer = _layer.get()
        if layer.enable_eplb:
            state = layer.eplb_state
            ids = map_to_physical_and_record(
                ids,
                state.expert_load_view,
                state.logical_to_physical_map,
                state.logical_replica_count,
                record_enabled=torch.tensor(True),
            )
        if layer.expert_map is not None:
            ids, weights = keep_local_experts(ids, weights, layer.expert_map)
        return weights, ids

    return select_experts


def _override_init_device(original: _Function) -> _Function:
    @functools.wraps(original)
    def init_device(self: Any) -> None:
        # Only the names are looked for. Nothing is loaded, and answers do not depend on it.
        preload = f"{os.environ.get('LD_PRELOAD', '')}:libtcmalloc:libiomp"
        with mock.patch.dict(os.environ, LD_PRELOAD=preload):
            original(self)

    return init_device


OVERRIDES = (
    Override(
        target=f"{_MOE}.unquantized_fused_moe_method:"
        "UnquantizedFusedMoEMethod.forward_monolithic_cpu",
        signature="(self, layer, x, router_logits)",
        kind="hook",
        replace=_override_forward,
        fixes="What chooses experts on a CPU does not know for which layer.",
        delete_when="vLLM 0.18 is no longer supported.",
        releases=_RELEASES,
    ),
    Override(
        target=f"{_MOE}.cpu_fused_moe:select_experts",
        signature="(hidden_states, router_logits, top_k, use_grouped_topk, renormalize, "
        "topk_group=None, num_expert_group=None, custom_routing_function=None, "
        "scoring_func='softmax', routed_scaling_factor=1.0, e_score_correction_bias=None)",
        kind="pretend",
        replace=_override_select_experts,
        fixes="CPU experts ignore the expert map and EPLB: the server crashes under EP.",
        delete_when="vLLM 0.18 is no longer supported.",
        releases=_RELEASES,
    ),
    Override(
        target="vllm.v1.worker.cpu_worker:CPUWorker.init_device",
        signature="(self)",
        kind="pretend",
        replace=_override_init_device,
        fixes="The CPU worker refuses to start unless two libraries are in LD_PRELOAD, which no "
        "Python package brings.",
        delete_when="vLLM 0.18 is no longer supported: 0.19 only warns.",
        releases=_RELEASES,
    ),
)
