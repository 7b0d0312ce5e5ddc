# SPDX-License-Identifier: Apache-2.0
"""The GPUs that a server would see."""

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
