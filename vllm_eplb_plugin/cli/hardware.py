# SPDX-License-Identifier: Apache-2.0
"""What an environment has for expert parallelism: its GPUs, and DeepEP."""

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

_GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use; ``CUDA_VISIBLE_DEVICES`` hides others."""

    name: str
    memory_gib: float
    free_gib: float


def visible_gpus() -> list[Gpu]:
    """List the GPUs of NVIDIA or AMD, in the order in which torch numbers them.

    Raises:
        ImportError: There is no torch.
        RuntimeError: torch sees a GPU and cannot use it.
    """
    import torch

    return [_look_at(torch, index) for index in range(torch.cuda.device_count())]


def _look_at(torch: ModuleType, index: int) -> Gpu:
    free, total = torch.cuda.mem_get_info(index)
    name: str = torch.cuda.get_device_name(index)
    return Gpu(name, round(total / _GIB, 1), round(free / _GIB, 1))


def deep_ep_problem() -> str | None:
    """Say why vLLM cannot use DeepEP here; None if it can.

    vLLM only looks whether there is a package of that name. One that was built for another
    PyTorch, does not find NVSHMEM, or is not DeepEP at all, then fails in every worker.
    """
    if importlib.util.find_spec("deep_ep") is None:
        return "deep_ep is not installed"
    try:
        deep_ep = importlib.import_module("deep_ep")
    except Exception as error:  # whatever foreign code raises is the answer
        return f"deep_ep cannot be imported: {type(error).__name__}: {error}"
    if not hasattr(deep_ep, "Buffer"):
        return f"deep_ep of {deep_ep.__file__} has no class Buffer, so it is not DeepEP"
    return None
