# SPDX-License-Identifier: Apache-2.0
"""A process between the harness and what it starts, which ends all of that with the harness.

It leads the session of a server and takes in its orphans. Its standard input is a pipe that only
the harness can write to: when that is closed, the harness has ended, however it did, and so does
all the rest. It is run as a file by an isolated Python, and starts in a few hundredths of a second.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from eval.serving.kernel import die_with_the_parent, take_in_orphans
from eval.serving.leftovers import Record, end_descendants, identity, remove_what_is_left
from eval.serving.process_table import belonging_to
from eval.serving.segments import segments_of

_POLL_SECONDS = 0.1
_LEAST_BETWEEN_LOOKS, _MOST_BETWEEN_LOOKS = 2.0, 60.0
"""At shared memory, most of which is made while a server starts."""
_LONGEST_FOLDER = 70
"""Characters: the path of a socket in it has 37 more, and 107 at most."""


class Task(NamedTuple):
    """What a guardian is told, as the first of its arguments; the rest is the command."""

    tells: int
    """File descriptor for lines of JSON: ``pid`` or ``errno`` first, ``status``, ``left``."""
    grace_seconds: float
    """From SIGTERM to SIGKILL."""
    orphan_seconds: float
    """For what a server that ended by itself has left, until that is killed."""
    record: str
    """File that exists as long as something runs."""
    harness: tuple[int, int]
    folder_in: str
    """Where ``TMPDIR`` of the server is made."""


@dataclass
class Guardian:
    """One server, from its start until nothing of it is left."""

    task: Task
    record: Record
    segments: set[str] = field(default_factory=set)
    asked_to_end: bool = False
    status: int | None = None

    def guard(self, command: list[str]) -> None:
        """Start a command, and come back when it and all that it started has ended."""
        try:
            self._server = subprocess.Popen(
                command,
                env={**os.environ, "TMPDIR": self.record.folder},
                stdin=subprocess.DEVNULL,
                preexec_fn=_before_the_command,
            )
        except OSError as error:
            self._tell(errno=error.errno, path=command[0])
            return
        self._tell(pid=self._server.pid)
        self._wait_for_the_server()
        self._wait_for_orphans()
        self._look_at_shared_memory()
        end_descendants(os.getpid(), self._reap)

    def keep_record(self) -> None:
        """Write it; on a full disk there is none, which only who comes after a SIGKILL misses."""
        with suppress(OSError):
            self.record.write(Path(self.task.record))

    def clean_up(self) -> None:
        """Remove what is left, and tell of it."""
        self._tell(left=remove_what_is_left(self.record.folder, self.segments))
        Path(self.task.record).unlink(missing_ok=True)

    def _wait_for_the_server(self) -> None:
        started, look_at = time.monotonic(), time.monotonic()
        kill_at: float | None = None
        while self.status is None:
            if self._is_to_end() and kill_at is None:
                self._look_at_shared_memory()
                self._send(signal.SIGTERM)
                kill_at = time.monotonic() + self.task.grace_seconds
            if kill_at is not None and time.monotonic() > kill_at:
                self._send(signal.SIGKILL)
            if time.monotonic() > look_at:
                self._look_at_shared_memory()
                tenth = (time.monotonic() - started) / 10
                between = min(max(tenth, _LEAST_BETWEEN_LOOKS), _MOST_BETWEEN_LOOKS)
                look_at = time.monotonic() + between
            self._reap()

    def _wait_for_orphans(self) -> None:
        deadline = time.monotonic() + self.task.orphan_seconds
        while not self._is_to_end() and time.monotonic() < deadline:
            self._reap()
            if not belonging_to(os.getpid()):
                return

    def _is_to_end(self) -> bool:
        """Whether the harness says so, or has ended; waits a moment for either."""
        if not self.asked_to_end:
            ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
            self.asked_to_end = bool(ready)
        else:
            time.sleep(_POLL_SECONDS)
        return self.asked_to_end

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._server.pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._server.pid:
                self.status = os.waitstatus_to_exitcode(status)
                self._tell(status=self.status)

    def _look_at_shared_memory(self) -> None:
        found = {str(path) for path in segments_of(belonging_to(os.getpid()))}
        if found - self.segments:
            self.segments |= found
            self.record.segments = sorted(self.segments)
            self.keep_record()

    def _tell(self, **what: Any) -> None:
        with suppress(OSError):  # the harness has ended
            os.write(self.task.tells, f"{json.dumps(what)}\n".encode())


def _before_the_command() -> None:
    die_with_the_parent()
    # What the guardian ignores, a program that it starts would ignore, too.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(arguments: list[str]) -> None:
    """Guard a command until nothing of it is left."""
    words, *command = arguments
    told = json.loads(words)
    task = Task(**{**told, "harness": tuple(told["harness"])})
    # It ends last, and is told to by its standard input.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_inheritable(task.tells, False)
    take_in_orphans()
    folder = _new_folder(task.folder_in)
    record = Record(task.harness, identity(os.getpid()), folder)
    guardian = Guardian(task, record)
    guardian.keep_record()
    guardian.guard(command)
    guardian.clean_up()


def _new_folder(parent: str) -> str:
    folder = Path(parent, f"eplb-{os.urandom(6).hex()}")
    if len(str(folder)) > _LONGEST_FOLDER:
        folder = Path("/tmp", folder.name)
    folder.mkdir(0o700)
    return str(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
