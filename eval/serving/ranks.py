# SPDX-License-Identifier: Apache-2.0
"""The processes of a server, those of its EP ranks among them, and what they hold."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from eval.errors import ServerError

_SHARED = "/dev/shm/"
_MIB = 2**20


class Usage(NamedTuple):
    """What all processes of a session hold."""

    threads: int
    descriptors: int
    shared_mib: int
    """Of files in /dev/shm, each counted once."""


def processes_of(session: int) -> list[int]:
    """Find the processes of a session that still run."""
    return [pid for pid in psutil.pids() if _session_of(pid) == session and not _has_ended(pid)]


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
    size = sum(_size(path) for path in shared_files(session))
    return Usage(threads, descriptors, size // _MIB)


def shared_files(session: int) -> set[Path]:
    """Find the files in /dev/shm that its processes have mapped or open."""
    return {path for pid in processes_of(session) for path in _shared_by(pid)}


def _shared_by(pid: int) -> Iterator[Path]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return
    for line in maps.splitlines():
        at = line.find(_SHARED)
        if at >= 0 and not line.endswith(" (deleted)"):
            yield Path(line[at:])


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _has_ended(pid: int) -> bool:
    try:
        ended: bool = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
    return ended
