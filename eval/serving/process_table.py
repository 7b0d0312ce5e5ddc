# SPDX-License-Identifier: Apache-2.0
"""Processes as /proc tells of them; imports nothing beside Python's own library."""

from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_ENDED = "ZX"
_TRACKER = b"multiprocessing.resource_tracker"


class Process(NamedTuple):
    """One that had not ended."""

    pid: int
    parent: int
    session: int
    started: int
    """Ticks from the machine's start; with the number it is of this process alone."""


def process(pid: int) -> Process | None:
    """Look at one; None: it has ended, or waits for its parent to take note."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may have any character in it.
    state, parent, _, session, *others = text.rpartition(")")[2].split()
    if state in _ENDED:
        return None
    return Process(pid, int(parent), int(session), int(others[15]))


def is_same(pid: int, started: int) -> bool:
    """Whether a process still runs, and its number has not been given to another one."""
    found = process(pid)
    return found is not None and found.started == started


def belonging_to(leader: int) -> list[int]:
    """Processes of the session that ``leader`` leads, and all that descend from it; not it."""
    found = {pid: one for pid in all_pids() if (one := process(pid))}
    return [pid for pid, one in found.items() if pid != leader and _is_of(one, leader, found)]


def is_resource_tracker(pid: int) -> bool:
    """Whether it is Python's, which removes shared memory when those that use it have ended."""
    try:
        return _TRACKER in (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def all_pids() -> list[int]:
    """Of every process, whoever's it is."""
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _is_of(one: Process, leader: int, every: dict[int, Process]) -> bool:
    above: Process | None = one
    while above is not None:
        if leader in (above.session, above.parent):
            return True
        above = every.get(above.parent)
    return False
