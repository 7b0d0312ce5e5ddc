# SPDX-License-Identifier: Apache-2.0
"""Overrides for DP+EP+EPLB on vLLM 0.32's CPU backend, bound in loopback workers only."""

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from vllm_eplb_plugin.install import Override
from vllm_eplb_plugin.loopback.collectives import all_gather_uneven, reduce_scatter_uneven
from vllm_eplb_plugin.loopback.experts import keep_local_experts, map_to_physical_and_record
from vllm_eplb_plugin.loopback.gate import ALLOW_EPLB
from vllm_eplb_plugin.state.errors import ModelWithoutEplbError

_EPLB = "vllm.distributed.eplb"
_MOE = "vllm.model_executor.layers.fused_moe"
_COMMUNICATOR = "vllm.distributed.device_communicators.cpu_communicator:CpuCommunicator"
_NO_CPU_EXPERT_PARALLELISM = "vLLM's CPU backend serves data and expert parallelism."
_NO_CPU_EPLB = "vLLM's EPLB runs on a CPU device."

_Function = Callable[..., Any]


class HostStream:
    """Stands for an accelerator stream where there is none: work is done when it is issued."""

    def synchronize(self) -> None:
        """Nothing is ever pending."""


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


def _override_load_model(original: _Function) -> _Function:
    @functools.wraps(original)
    def load_model(self: Any, load_dummy_weights: bool = False) -> None:
        from vllm.distributed.eplb.eplb_state import EplbState
        from vllm.model_executor.models.interfaces import get_mixture_of_experts_model

        original(self, load_dummy_weights)
        if not self.parallel_config.enable_eplb:
            return
        self._moe_model = get_mixture_of_experts_model(self.model)
        if self._moe_model is None:
            raise ModelWithoutEplbError(type(self.model).__name__)
        self.eplb_state = EplbState(self.parallel_config, self.device)
        self.eplb_state.add_model(self._moe_model, self.model_config)
        for model_state in self.eplb_state.model_states.values():
            model_state.communicator.set_stream(HostStream())
        self.eplb_state.start_async_loop()

    return load_model


def _override_start_async_worker(_: _Function) -> _Function:
    def start_async_worker(state: Any, is_profile: bool = False) -> threading.Thread:
        from vllm.distributed.eplb import async_worker

        thread = threading.Thread(
            target=async_worker.transfer_run_periodically,
            kwargs={"state": state, "stream": HostStream(), "is_profile": is_profile},
            name="eplb-async-worker",
            daemon=True,
        )
        thread.start()
        return thread

    return start_async_worker


def _override_device_stream(_: _Function) -> _Function:
    def device_stream(stream: HostStream | None) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    return device_stream


def _override_event_init(original: _Function) -> _Function:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)

        def record(*_args: Any) -> None:
            self.seconds = time.perf_counter()

        self.record = record
        self.elapsed_time = lambda end: (end.seconds - self.seconds) * 1000.0

    return __init__


OVERRIDES = (
    ALLOW_EPLB,
    Override(
        target=f"{_COMMUNICATOR}.all_gatherv",
        signature="(self, input_, dim=0, sizes=None)",
        replace=_override_all_gatherv,
        fixes="NotImplementedError at the first request with data and expert parallelism.",
        delete_when=_NO_CPU_EXPERT_PARALLELISM,
    ),
    Override(
        target=f"{_COMMUNICATOR}.reduce_scatterv",
        signature="(self, input_, dim=-1, sizes=None)",
        replace=_override_reduce_scatterv,
        fixes="NotImplementedError at the first request with data and expert parallelism.",
        delete_when=_NO_CPU_EXPERT_PARALLELISM,
    ),
    Override(
        target=f"{_MOE}.experts.cpu_moe:CPUUnquantizedExperts.apply",
        signature="(self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, "
        "global_num_experts, expert_map, a1q_scale, a2_scale, workspace13, workspace2, "
        "expert_tokens_meta, apply_router_weight_on_input)",
        replace=_override_apply,
        fixes="CPU experts ignore the expert map: silently wrong answers under EP.",
        delete_when=_NO_CPU_EXPERT_PARALLELISM,
    ),
    Override(
        target=f"{_MOE}.router.base_router:eplb_map_to_physical_and_record",
        signature="(topk_ids, expert_load_view, logical_to_physical_map, logical_replica_count, "
        "record_enabled, num_unpadded_tokens=None)",
        replace=lambda _: map_to_physical_and_record,
        fixes="On a CPU the router takes logical experts for slots and counts no load.",
        delete_when=_NO_CPU_EPLB,
    ),
    Override(
        target="vllm.v1.worker.cpu_model_runner:CPUModelRunner.load_model",
        signature="(self, load_dummy_weights=False)",
        replace=_override_load_model,
        fixes="The CPU model runner never makes an EplbState.",
        delete_when=_NO_CPU_EPLB,
    ),
    Override(
        target="vllm.v1.worker.cpu.shm:_EventPlaceholder.__init__",
        signature="(self, *args, **kwargs)",
        replace=_override_event_init,
        fixes="rearrange measures its time with events, and the CPU's stand-in has no time.",
        delete_when=_NO_CPU_EPLB,
    ),
    Override(
        target=f"{_EPLB}.eplb_state:start_async_worker",
        signature="(state, is_profile=False)",
        replace=_override_start_async_worker,
        fixes="The async worker's thread needs a device index and a stream, and dies without.",
        delete_when=_NO_CPU_EPLB,
    ),
    *(
        Override(
            target=f"{_EPLB}.{module}:device_stream",
            signature="(stream)",
            replace=_override_device_stream,
            fixes="torch.accelerator has no streams on a CPU.",
            delete_when=_NO_CPU_EPLB,
        )
        for module in ("async_worker", "eplb_communicator", "rebalance_execute")
    ),
)
