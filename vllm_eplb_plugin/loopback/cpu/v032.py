# SPDX-License-Identifier: Apache-2.0
"""Overrides for DP+EP+EPLB on the CPU backend of vLLM 0.32 and later, in loopback workers only."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from vllm_eplb_plugin.loopback.cpu.experts import keep_local_experts, map_to_physical_and_record
from vllm_eplb_plugin.loopback.cpu.uneven_collectives import (
    all_gather_uneven,
    reduce_scatter_uneven,
)
from vllm_eplb_plugin.overrides.override import Override

_MOE = "vllm.model_executor.layers.fused_moe"
_COMMUNICATOR = "vllm.distributed.device_communicators.cpu_communicator:CpuCommunicator"
_NO_CPU_EXPERT_PARALLELISM = "vLLM's CPU backend serves data and expert parallelism."
_RELEASES = ">=0.32"

_Function = Callable[..., Any]


def _override_all_gatherv(_: _Function) -> _Function:
    def all_gatherv(
        self: Any, input_: Any, dim: int = 0, sizes: list[int] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        assert dim == 0, f"experts' tokens are gathered along dimension 0, not {dim}"
        tensors = input_ if isinstance(input_, list) else [input_]
        sizes = sizes or [tensors[0].shape[0]] * self.world_size
        gathered = [all_gather_uneven(tensor, sizes, self.device_group) for tensor in tensors]
        return gathered if isinstance(input_, list) else gathered[0]

    return all_gatherv


def _override_reduce_scatterv(_: _Function) -> _Function:
    def reduce_scatterv(
        self: Any, input_: torch.Tensor, dim: int = -1, sizes: list[int] | None = None
    ) -> torch.Tensor:
        assert dim == 0, f"experts' tokens are scattered along dimension 0, not {dim}"
        sizes = sizes or [input_.shape[0] // self.world_size] * self.world_size
        return reduce_scatter_uneven(input_, sizes, self.rank_in_group, self.device_group)

    return reduce_scatterv


def _override_apply(original: _Function) -> _Function:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def apply(*args: Any, **kwargs: Any) -> None:
        call = signature.bind(*args, **kwargs).arguments
        if call["expert_map"] is not None:
            if call["apply_router_weight_on_input"]:
                raise NotImplementedError(
                    "loopback cannot serve a model that applies router weights on the input: "
                    "a weight of zero would not hide another rank's expert"
                )
            call["topk_ids"], call["topk_weights"] = keep_local_experts(
                call["topk_ids"], call["topk_weights"], call["expert_map"]
            )
        original(**call)

    return apply


OVERRIDES = (
    Override(
        target=f"{_COMMUNICATOR}.all_gatherv",
        signature="(self, input_, dim=0, sizes=None)",
        kind="pretend",
        replace=_override_all_gatherv,
        fixes="NotImplementedError at the first request with data and expert parallelism.",
        delete_when=_NO_CPU_EXPERT_PARALLELISM,
        releases=_RELEASES,
    ),
    Override(
        target=f"{_COMMUNICATOR}.reduce_scatterv",
        signature="(self, input_, dim=-1, sizes=None)",
        kind="pretend",
        replace=_override_reduce_scatterv,
        fixes="NotImplementedError at the first request with data and expert parallelism.",
        delete_when=_NO_CPU_EXPERT_PARALLELISM,
        releases=_RELEASES,
    ),
    Override(
        target=f"{_MOE}.experts.cpu_moe:CPUUnquantizedExperts.apply",
        signature="(self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, "
        "global_num_experts, expert_map, a1q_scale, a2_scale, workspace13, workspace2, "
        "expert_tokens_meta, apply_router_weight_on_input)",
        kind="pretend",
        replace=_override_apply,
        fixes="CPU experts ignore the expert map: silently wrong answers under EP.",
        delete_when=_NO_CPU_EXPERT_PARALLELISM,
        releases=_RELEASES,
    ),
    Override(
        target=f"{_MOE}.router.base_router:eplb_map_to_physical_and_record",
        signature="(topk_ids, expert_load_view, logical_to_physical_map, logical_replica_count, "
        "record_enabled, num_unpadded_tokens=None)",
        kind="pretend",
        replace=lambda _: map_to_physical_and_record,
        fixes="On a CPU the router takes logical experts for slots and counts no load.",
        delete_when="vLLM's EPLB runs on a CPU device.",
        releases=_RELEASES,
    ),
)
