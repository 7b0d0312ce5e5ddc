# SPDX-License-Identifier: Apache-2.0
"""What a child process and its own children leave, and how it is ended and removed.

`eval.serving.guardian` imports this, so it imports nothing beside Python's own library.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.serving.process_table import belonging_to, is_resource_tracker, is_same, process
from eval.serving.segments import remove_unused

RECORD = ".running.json"
"""End of the name of a record, beside the log of what it tells of."""
_POLL_SECONDS = 0.05
_SECONDS_TO_DISAPPEAR = 5.0
_SECONDS_FOR_TRACKERS = 5.0


@dataclass
class Record:
    """What runs, kept as a file for whoever comes after a harness that was killed."""

    harness: tuple[int, int]
    """Process id and start (`eval.serving.process_table.Process`)."""
    guardian: tuple[int, int]
    """The same. Its id is that of the session of all that it started."""
    folder: str
    """``TMPDIR`` of what was started, of its own."""
    segments: list[str] = field(default_factory=list)
    """In /dev/shm, seen so far."""
    machine: str = field(default_factory=lambda: _this_machine())
    """On which these numbers mean these processes."""

    def __post_init__(self) -> None:
        for pid, started in (self.harness, self.guardian):
            if pid <= 1 or started < 0:
                raise ValueError(f"no process that could be ended: {pid}, started {started}")

    def write(self, file: Path) -> None:
        """Keep it, whole or not at all."""
        new = file.with_name(f"{file.name}.new")
        try:
            new.write_text(json.dumps(asdict(self)), encoding="utf-8")
            new.replace(file)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def read_record(file: Path) -> Record | None:
    """Read one; None: it is gone or none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        harness, guardian = tuple(found.pop("harness")), tuple(found.pop("guardian"))
        return Record(harness, guardian, **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _this_machine() -> str:
    """Until it is started again, and within one container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def identity(pid: int) -> tuple[int, int]:
    """Of a process that runs: what tells it from another one that gets its number later."""
    found = process(pid)
    if found is None:
        raise ProcessLookupError(pid)
    return found.pid, found.started


def end_descendants(leader: int, reap: Callable[[], None] = lambda: None) -> None:
    """Kill all that belongs to a leader, and let Python's trackers of shared memory end last.

    Args:
        leader: Of a session; is not killed itself.
        reap: Takes note of children that have ended.
    """

    def others() -> list[int]:
        reap()
        return [pid for pid in belonging_to(leader) if not is_resource_tracker(pid)]

    def trackers() -> list[int]:
        reap()
        return belonging_to(leader)

    _kill_until_none(others, _SECONDS_TO_DISAPPEAR)
    deadline = time.monotonic() + _SECONDS_FOR_TRACKERS
    while trackers() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    _kill_until_none(trackers, _SECONDS_TO_DISAPPEAR)


def remove_what_is_left(folder: str, segments: Iterable[str]) -> list[str]:
    """Remove the folder and shared memory of processes that have ended; names what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    return [str(path) for path in remove_unused(Path(one) for one in segments)]


def end_recorded(file: Path, grace_seconds: float) -> list[int]:
    """End what a record tells of, if the harness that started it has been killed.

    Args:
        file: The record, which is gone then.
        grace_seconds: For its guardian, which may be about to do the same.

    Returns:
        Processes that were still there.
    """
    record = read_record(file)
    if record is None or record.machine != _this_machine() or is_same(*record.harness):
        return []
    leader, _ = record.guardian
    deadline = time.monotonic() + grace_seconds
    found: Sequence[int] = belonging_to(leader) if _is_a_session_of(record) else ()
    while is_same(*record.guardian) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if file.exists():
        if _is_a_session_of(record):
            if is_same(*record.guardian):
                _kill([leader])
            end_descendants(leader)
        remove_what_is_left(record.folder, record.segments)
        file.unlink(missing_ok=True)
    return list(found)


def _is_a_session_of(record: Record) -> bool:
    """Nobody else has got the number: it stays taken as long as its session has a process."""
    leader, started = record.guardian
    now = process(leader)
    return now is None or now.started == started


def _kill_until_none(pids: Callable[[], list[int]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    # Again and again: one that is about to be killed may start another.
    while (left := pids()) and time.monotonic() < deadline:
        _kill(left)
        time.sleep(_POLL_SECONDS)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
