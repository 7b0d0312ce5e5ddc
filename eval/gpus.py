# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's GPUs, as the driver tells of them through NVML."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pynvml  # type: ignore[import-untyped]

_MIB = 2**20


class GpuProcess(NamedTuple):
    """A process with memory on one GPU."""

    pid: int
    mib: int


def gpu_names() -> list[str]:
    """One for each GPU; none without one, or without its driver."""
    try:
        with _devices() as devices:
            return [_text(pynvml.nvmlDeviceGetName(device)) for device in devices]
    except pynvml.NVMLError:
        return []


def gpu_processes() -> list[GpuProcess]:
    """Of all GPUs, as far as the driver tells what they use; one on two GPUs is there twice."""
    try:
        with _devices() as devices:
            return [
                GpuProcess(process.pid, process.usedGpuMemory // _MIB)
                for device in devices
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device)
                if process.usedGpuMemory is not None
            ]
    except pynvml.NVMLError:
        return []


def gpu_memory_of_devices_mib() -> int | None:
    """Memory in use on all GPUs by whomever, in MiB; None: the driver does not tell."""
    try:
        with _devices() as devices:
            used = [pynvml.nvmlDeviceGetMemoryInfo(device).used for device in devices]
    except pynvml.NVMLError:
        return None
    return sum(used) // _MIB if used else None


@contextmanager
def _devices() -> Iterator[list[object]]:
    pynvml.nvmlInit()
    try:
        count = pynvml.nvmlDeviceGetCount()
        yield [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    finally:
        pynvml.nvmlShutdown()


def _text(name: str | bytes) -> str:
    """Earlier releases of the binding give bytes."""
    return name.decode() if isinstance(name, bytes) else name
