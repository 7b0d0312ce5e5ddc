# SPDX-License-Identifier: Apache-2.0
"""The front end's part of loopback on one GPU: what it can serve, and each rank's memory."""

import math
import os
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.loopback.refusals import LoopbackError

WORKER = "vllm_eplb_plugin.loopback.one_gpu.worker.LoopbackCudaWorker"

_GIB = 2**30
_KV_CACHE_BYTES = _GIB
"""Of each rank, if nobody says: what vLLM would measure has its neighbour's memory in it."""
_CONTEXT_BYTES = _GIB
"""That CUDA itself takes in each process: 0.5 to 0.7 GiB on an H100."""
_COLLECTIVES = ("allgather_reducescatter", "naive", "pplx")
"""The other names of all2all backends for which vLLM takes the first."""


def prepare_arguments(arguments: Any) -> None:
    """Check vLLM's ``EngineArgs`` and set what loopback needs, before a config is made of them.

    Raises:
        LoopbackError: Loopback cannot serve so, or the GPU has not enough memory.
    """
    _refuse_without_gpu()
    _refuse_what_ranks_of_one_gpu_cannot_do(arguments)
    if not arguments.enforce_eager:
        from vllm.logger import init_logger

        init_logger("vllm.eplb_plugin").warning(
            "Loopback runs eager: CUDA graphs cannot capture collectives over gloo."
        )
        arguments.enforce_eager = True
    # With several ranks vLLM makes the worker a process of its own, which imports everything again.
    arguments.distributed_executor_backend = arguments.distributed_executor_backend or "uni"
    free, total = _memory_of_first_gpu()
    default = type(arguments).__dataclass_fields__["gpu_memory_utilization"].default
    asked = arguments.gpu_memory_utilization
    arguments.kv_cache_memory_bytes = arguments.kv_cache_memory_bytes or _KV_CACHE_BYTES
    arguments.gpu_memory_utilization = share_of_each_rank(
        ranks=arguments.data_parallel_size,
        free=free,
        total=total,
        asked=None if asked == default else asked,
        kv_cache=arguments.kv_cache_memory_bytes,
        weights=0 if arguments.load_format == "dummy" else checkpoint_bytes(arguments.model),
    )


def prepare_config(config: Any) -> None:
    """Choose worker and groups: nothing may make a NCCL communicator."""
    parallel = config.parallel_config
    parallel.worker_cls = WORKER
    parallel.disable_nccl_for_dp_synchronization = True
    parallel.eplb_config.communicator = "torch_gloo"


def share_of_each_rank(
    ranks: int, free: int, total: int, asked: float | None, kv_cache: int, weights: int
) -> float:
    """Compute the ``gpu_memory_utilization`` of each of ``ranks`` on one GPU.

    Args:
        ranks: Data parallel ranks.
        free: Bytes of the GPU that nobody uses.
        total: Bytes of the GPU.
        asked: What the user wants each rank to have; None: as much as fits.
        kv_cache: Bytes of each rank.
        weights: Bytes of the model, which all ranks together have at least once.

    Raises:
        LoopbackError: It does not fit.
    """
    least = weights + ranks * (kv_cache + _CONTEXT_BYTES)
    if least > free:
        raise LoopbackError(
            f"{ranks} ranks do not fit on one GPU: they need {least / _GIB:.1f} GiB at least "
            f"(weights {weights / _GIB:.1f}, and for each rank a KV cache of "
            f"{kv_cache / _GIB:.1f} and {_CONTEXT_BYTES / _GIB:.1f} for CUDA), and of "
            f"{total / _GIB:.1f} GiB {free / _GIB:.1f} are free. Use a smaller "
            "--data-parallel-size or --kv-cache-memory-bytes, or stop what uses the GPU"
        )
    most = math.floor(90 * free / total / ranks) / 100
    if asked is None:
        return most
    if ranks * asked * total > free:
        raise LoopbackError(
            f"{ranks} ranks share one GPU, and --gpu-memory-utilization {asked:g} of each is "
            f"{ranks * asked * total / _GIB:.1f} GiB together, while of {total / _GIB:.1f} GiB "
            f"{free / _GIB:.1f} are free: make it {most:g} or less, or leave it out"
        )
    return asked


def checkpoint_bytes(model: str) -> int:
    """Measure the weights in a model's folder; 0 if it is none, but a name on the Hub."""
    return sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))


def _refuse_without_gpu() -> None:
    from vllm.platforms import current_platform

    if current_platform.device_count() == 0:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
        raise LoopbackError(
            f"loopback puts all ranks on one GPU, and CUDA finds none here{why}. Without a GPU, "
            "use vLLM's build for the CPU (scripts/setup makes an environment with it)"
        )


def _refuse_what_ranks_of_one_gpu_cannot_do(arguments: Any) -> None:
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if (size := getattr(arguments, name)) != 1:
            option = name.replace("_", "-")
            raise LoopbackError(
                f"loopback on a GPU serves data parallel ranks only, and --{option} is {size}: "
                "make it 1, and --data-parallel-size the number of ranks"
            )
    local = arguments.data_parallel_size_local
    if local is not None and local != arguments.data_parallel_size:
        raise LoopbackError(
            f"loopback has all ranks on one GPU, and --data-parallel-size-local is {local} of "
            f"{arguments.data_parallel_size}: leave it out"
        )
    if arguments.data_parallel_backend != "mp":
        raise LoopbackError(
            "loopback starts its ranks as processes, and --data-parallel-backend is "
            f"{arguments.data_parallel_backend!r}: leave it out"
        )
    if arguments.all2all_backend not in _COLLECTIVES:
        raise LoopbackError(
            f"loopback's collectives are gloo's, and --all2all-backend is "
            f"{arguments.all2all_backend!r}: make it {_COLLECTIVES[0]}, or leave it out"
        )
    communicator = arguments.eplb_config.communicator
    if communicator not in (None, "torch_gloo"):
        raise LoopbackError(
            "ranks of one GPU cannot send each other weights over NCCL or NIXL, and communicator "
            f"in --eplb-config is {communicator!r}: make it 'torch_gloo', or leave it out"
        )


def _memory_of_first_gpu() -> tuple[int, int]:
    """Free and total bytes. From the driver's library: CUDA would stay in this process."""
    from vllm.platforms import current_platform
    from vllm.third_party import pynvml

    pynvml.nvmlInit()
    try:
        gpu = current_platform.device_id_to_physical_device_id(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(gpu))
        return memory.free, memory.total
    finally:
        pynvml.nvmlShutdown()
