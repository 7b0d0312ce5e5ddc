# SPDX-License-Identifier: Apache-2.0
"""Memory of all processes of a server, on the host and on NVIDIA's GPUs."""

import psutil  # type: ignore[import-untyped]

from eval.gpus import gpu_memory_of_devices_mib, gpu_processes
from eval.serving.ranks import processes_of

__all__ = ["gpu_memory_mib", "gpu_memory_of_devices_mib", "host_memory_mib"]

_MIB = 2**20


def gpu_memory_mib(session: int) -> int | None:
    """Memory in use on all GPUs by the processes of one session, in MiB.

    Args:
        session: The process id of its leader, as a server of `ChildProcess` is one.

    Returns:
        None: there is no driver, or it does not tell of these processes.
    """
    pids = processes_of(session)
    used = [process.mib for process in gpu_processes() if process.pid in pids]
    return sum(used) if used else None


def host_memory_mib(session: int) -> int:
    """Resident memory of a session's processes, in MiB; what they share counts in each."""
    return sum(_resident(pid) for pid in processes_of(session)) // _MIB


def _resident(pid: int) -> int:
    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:  # it has ended meanwhile
        return 0
    return resident
