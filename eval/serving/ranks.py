# SPDX-License-Identifier: Apache-2.0
"""The processes of a server, those of its EP ranks among them, and what they hold."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from eval.errors import ServerError
from eval.serving.process_table import all_pids, process
from eval.serving.segments import mapped, segments_of

_MIB = 2**20


class Usage(NamedTuple):
    """What all processes of a session hold."""

    threads: int
    descriptors: int
    shared_mib: int
    """Of files in /dev/shm, each counted once."""


def processes_of(session: int) -> list[int]:
    """Find the processes of a session that still run."""
    return [pid for pid in all_pids() if (one := process(pid)) and one.session == session]


def rank_process(session: int, rank: int) -> int:
    """Find the process that is one EP rank: a worker's, or the engine's that has one in it.

    Raises:
        ServerError: No process of the server says that it is.
    """
    titles = {pid: _title(pid) for pid in processes_of(session)}
    for pattern in (rf"VLLM::Worker\S*_EP{rank}\b", rf"VLLM::EngineCore_DP{rank}\b"):
        for pid, title in titles.items():
            if re.search(pattern, title):
                return pid
    told = ", ".join(sorted({title for title in titles.values() if "VLLM::" in title}))
    raise ServerError(f"no process of the server is EP rank {rank}: there are {told or 'none'}")


def core_seconds(pid: int) -> float | None:
    """Processor time that a process has had, all its threads together; None: it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def usage_of(session: int) -> Usage:
    """Count what all processes of a session hold."""
    threads = descriptors = 0
    for pid in processes_of(session):
        try:
            process = psutil.Process(pid)
            threads += process.num_threads()
            descriptors += process.num_fds()
        except psutil.Error:  # it has ended meanwhile
            continue
    return Usage(threads, descriptors, _shared_bytes(session) // _MIB)


def shared_files(session: int) -> set[Path]:
    """Find the files in /dev/shm that its processes have mapped and that have a name."""
    return segments_of(processes_of(session))


def _shared_bytes(session: int) -> int:
    """Of all that its processes have mapped, the files without a name, too; each counts once."""
    sizes: dict[tuple[str, str], int] = {}
    for pid in processes_of(session):
        of_process: dict[tuple[str, str], int] = defaultdict(int)
        for one in mapped(pid):
            of_process[one.file] += one.size
        for file, size in of_process.items():
            sizes[file] = max(size, sizes.get(file, 0))
    return sum(sizes.values())


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
