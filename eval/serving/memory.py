# SPDX-License-Identifier: Apache-2.0
"""Memory of all processes of a server, on the host and on NVIDIA's GPUs."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

_PAGES_A_MIB = 2**20 // os.sysconf("SC_PAGE_SIZE")


def gpu_memory_mib(session: int) -> int | None:
    """Memory in use on all GPUs by the processes of one session, in MiB.

    Args:
        session: The process id of its leader, as a server of `ChildProcess` is one.

    Returns:
        None: there is no nvidia-smi, or it does not tell of these processes.
    """
    return sum_of_session(_ask_nvidia("--query-compute-apps=pid,used_memory"), session, _session_of)


def gpu_memory_of_devices_mib() -> int | None:
    """Memory in use on all GPUs by whomever, in MiB; None: nvidia-smi does not tell."""
    used = [one for one in _ask_nvidia("--query-gpu=memory.used").split() if one.isdigit()]
    return sum(int(one) for one in used) if used else None


def host_memory_mib(session: int) -> int:
    """Resident memory of a session's processes, in MiB; what they share counts in each."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sum(_resident_pages(pid) for pid in pids if _session_of(pid) == session) // _PAGES_A_MIB


def sum_of_session(
    listing: str, session: int, session_of: Callable[[int], int | None]
) -> int | None:
    """Sum the lines ``pid, MiB`` whose process is of ``session``; None without any.

    A process on several GPUs has a line for each.
    """
    used = []
    for line in listing.splitlines():
        pid, _, mebibytes = line.partition(",")
        if mebibytes.strip().isdigit() and session_of(int(pid)) == session:
            used.append(int(mebibytes))
    return sum(used) if used else None


def _ask_nvidia(query: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return ""
    # What went wrong is written to standard output, too.
    return answer.stdout if answer.returncode == 0 else ""


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return 0
