# SPDX-License-Identifier: Apache-2.0
"""Shared memory in /dev/shm: who has it mapped, and what nobody will ever map again."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from eval.serving.process_table import all_pids

_SHARED = "/dev/shm/"
_DELETED = " (deleted)"


class Mapped(NamedTuple):
    """A part of a file in /dev/shm that a process has mapped."""

    file: tuple[str, str]
    """Device and inode."""
    size: int
    path: str


def mapped(pid: int) -> Iterator[Mapped]:
    """Read what a process has mapped; nothing of one that has ended or is another user's."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if _SHARED not in line:
            continue
        addresses, _, _, device, inode, path = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in addresses.split("-"))
        yield Mapped((device, inode), last - first, path)


def segments_of(pids: Iterable[int]) -> set[Path]:
    """Find the files that processes have mapped and that have a name."""
    every = {one.path for pid in pids for one in mapped(pid)}
    return {Path(path) for path in every if not path.endswith(_DELETED)}


def remove_unused(known: Iterable[Path]) -> list[Path]:
    """Remove segments that no process has mapped or open.

    Args:
        known: That processes which have ended had mapped.

    Returns:
        Those that were removed.
    """
    left = {path for path in known if path.exists()}
    if not left:
        return []
    removed = []
    for path in sorted(left - set(_used())):
        try:
            path.unlink()
        except OSError:  # another one was sooner
            continue
        removed.append(path)
    return removed


def _used() -> Iterator[Path]:
    for pid in all_pids():
        yield from segments_of([pid])
        yield from _opened(pid)


def _opened(pid: int) -> Iterator[Path]:
    with suppress(OSError):  # it has ended, or is another user's
        for number in Path(f"/proc/{pid}/fd").iterdir():
            path = number.readlink()
            if str(path).startswith(_SHARED):
                yield path
