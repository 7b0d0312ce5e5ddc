# SPDX-License-Identifier: Apache-2.0
"""The front end's part of loopback on a CPU: what vLLM would choose by the machine is asked for.

docs/loopback.md lists all that vLLM chooses by processor or environment, and what becomes of it.
"""

import os
from typing import Any

import torch

from vllm_eplb_plugin.loopback.refusals import LoopbackError
from vllm_eplb_plugin.processor import processor_problem, this_processor

RELEASES = ("<0.19", ">=0.32")
"""Releases that loopback serves models with on a CPU; EPLB alone runs on one with every release."""

WORKER = "vllm_eplb_plugin.loopback.cpu.worker.LoopbackCPUWorker"

_ENVIRONMENT = {
    # With a Triton for CPUs vLLM takes the model runner V2, which loopback does not override.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # GiB of each rank. Otherwise each one's KV cache takes half of all memory, or nine tenths.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Otherwise every rank wants cores, or a NUMA node, of its own.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def prepare_arguments(arguments: Any) -> None:
    """Check vLLM's ``EngineArgs`` and set what loopback needs, before a config is made of them.

    Raises:
        LoopbackError: Loopback cannot serve so.
    """
    _refuse_what_breaks_experts()
    for variable, value in _ENVIRONMENT.items():
        if variable == "VLLM_CPU_KVCACHE_SPACE" and _kv_cache_is_given(arguments):
            continue
        os.environ[variable] = os.environ.get(variable) or value
    _ask_for_attention(arguments)


def prepare_config(config: Any, use_async: bool) -> None:
    """Choose the worker; ``use_async`` is what the user asked for.

    Raises:
        LoopbackError: Loopback cannot serve so.
    """
    if not config.model_config.enforce_eager:
        raise LoopbackError("loopback needs --enforce-eager: compiled CPU experts bypass it")
    if config.quant_config is not None:
        raise LoopbackError(
            f"loopback serves unquantized models, not {config.model_config.quantization!r}: "
            "vLLM's quantized CPU experts ignore which experts are local"
        )
    config.parallel_config.worker_cls = WORKER
    # 0.18 and 0.19 turn async off for fear of NCCL, which nothing uses here.
    config.parallel_config.eplb_config.use_async = use_async


def _kv_cache_is_given(arguments: Any) -> bool:
    """Whether vLLM would override what the user asked for."""
    return getattr(arguments, "kv_cache_memory_bytes", None) is not None


def _ask_for_attention(arguments: Any) -> None:
    """With AMX vLLM takes ``AMX_MLA`` for latent attention, whatever the dtype, and it packs
    weights of bfloat16 only (``CpuPlatform.get_attn_backend_cls``, 0.32)."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    backends = AttentionBackendEnum.__members__
    if "CPU_MLA" not in backends:  # before 0.28 there is no latent attention on a CPU
        return
    asked = _name_of(arguments.attention_backend or arguments.attention_config.backend)
    model = arguments.create_model_config()
    if asked in ("NONE", "AUTO") and model.use_mla:
        arguments.attention_backend = backends["CPU_MLA"]
    elif asked == "AMX_MLA" and model.dtype != torch.bfloat16:
        raise LoopbackError(
            f"the attention backend AMX_MLA takes bfloat16 only, and the model's dtype is "
            f"{str(model.dtype).removeprefix('torch.')}: leave --attention-backend out, or give "
            "--dtype bfloat16"
        )


def _name_of(backend: Any) -> str:
    """Of a member of vLLM's enumeration, or of what the user wrote."""
    return str(getattr(backend, "name", backend)).upper()


def _refuse_what_breaks_experts() -> None:
    if (problem := processor_problem(this_processor())) is not None:
        raise LoopbackError(f"loopback cannot serve on this CPU: {problem}")
    for variable, what in (
        ("VLLM_USE_V2_MODEL_RUNNER", "the model runner V2 on a CPU"),
        ("VLLM_CPU_SGL_KERNEL", "these kernels of vLLM 0.18"),
    ):
        if os.environ.get(variable, "0").lower() not in ("0", "false", ""):
            raise LoopbackError(f"loopback does not serve with {what}: unset {variable}")
