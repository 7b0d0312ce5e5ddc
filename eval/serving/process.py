# SPDX-License-Identifier: Apache-2.0
"""A child process with everything it starts: one log, and nothing of it stays behind."""

import getpass
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from eval.interrupts import interrupts_wait
from eval.secrets import SECRETS
from eval.serving import guardian
from eval.serving.leftovers import (
    RECORD,
    end_descendants,
    identity,
    read_record,
    remove_what_is_left,
)
from eval.serving.log_pipe import LogPipe

_POLL_SECONDS = 0.1
_SECONDS_TO_CLEAN_UP = 30.0
"""After the grace period, for a guardian to end what is left."""
_SECONDS_FOR_ORPHANS = 30.0
"""Ranks of a server that has ended notice that in seconds, and write why."""
_KILLED = -signal.SIGKILL
_MOST_BYTES = 2**16


class ChildProcess:
    """A context: the process runs inside it, and all that it started is gone after it.

    So it is when this process is killed: a guardian (`eval.serving.guardian`) is between the two.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        grace_seconds: float = 15,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            command: Program and arguments.
            environment: Added to this process's own.
            log: File for standard output and error, which are kept without secrets.
            grace_seconds: From SIGTERM to SIGKILL.
        """
        self._log = log
        self._pipe: LogPipe | None = None
        self._command = list(command)
        self._environment = _with_caches(environment)
        self._grace_seconds = grace_seconds
        self._record = log.with_name(f"{log.stem}{RECORD}").absolute()
        self.pid = 0
        """Of the process itself."""
        self._status: int | None = None
        self.left: list[str] = []
        """Shared memory that its end left, and that was removed."""

    @property
    def log(self) -> Path:
        """What it has written so far."""
        if self._pipe:
            self._pipe.catch_up()
        return self._log

    @property
    def session(self) -> int:
        """Of all its processes, its guardian among them."""
        return self._guardian.pid

    def __enter__(self) -> Self:
        started = False
        try:
            with interrupts_wait():
                self._start()
                started = True
        except KeyboardInterrupt:
            # Where entering fails there is no context whose end would stop the process.
            if started:
                self._stop()
            raise
        return self

    def _start(self) -> None:
        self.pid, self._status = 0, None
        self._told = b""
        self._ended = False
        life, self._life = os.pipe()
        self._tells, tells = os.pipe()
        task = guardian.Task(
            tells=tells,
            grace_seconds=self._grace_seconds,
            orphan_seconds=_SECONDS_FOR_ORPHANS,
            record=str(self._record),
            harness=identity(os.getpid()),
            folder_in=_temporary(self._environment),
        )
        words = json.dumps(task._asdict())
        with self._output() as output:
            # A session of its own: Ctrl-C in the terminal is for the harness, which then stops it.
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__, words, *self._command],
                env=self._environment,
                stdin=life,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[tells],
                start_new_session=True,
            )
        os.close(life)
        os.close(tells)
        while not self.pid and self._status is None:
            self._hear(_POLL_SECONDS)

    @contextmanager
    def _output(self) -> Iterator[int]:
        """Where the process writes; this one's end is closed once that is started."""
        if SECRETS:
            self._pipe = LogPipe(self._log, SECRETS.hide)
            output = self._pipe.written_by
        else:
            output = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            yield output
        finally:
            os.close(output)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with interrupts_wait():
            self._stop()

    def restart(self) -> None:
        """End it with all that it started, and start it again; the log goes on."""
        with interrupts_wait():
            self._stop()
        self.__enter__()

    def running(self) -> bool:
        """Whether the process itself, not its children, is alive."""
        self._hear(0)
        return self._status is None

    def wait(self) -> int:
        """Wait for the end of the process; its exit status, negative for a signal."""
        while self._status is None:
            self._hear(_POLL_SECONDS)
        return self._status

    def _hear(self, seconds: float) -> None:
        """Take note of what the guardian tells, and wait so long for the first of it."""
        if self._ended:
            return
        ready, _, _ = select.select([self._tells], [], [], seconds)
        if not ready:
            return
        read = os.read(self._tells, _MOST_BYTES)
        self._told += read
        *lines, self._told = self._told.split(b"\n")
        for line in lines:
            self._take_note(**json.loads(line))
        if not read:
            self._ended = True
            # A guardian that is killed takes the process with it.
            self._status = _KILLED if self._status is None else self._status

    def _take_note(
        self,
        pid: int | None = None,
        status: int | None = None,
        left: Sequence[str] = (),
        errno: int | None = None,
        path: str = "",
    ) -> None:
        self.pid = pid or self.pid
        self._status = self._status if status is None else status
        self.left += left
        if errno is not None:
            self._stop()
            raise OSError(errno, os.strerror(errno), path)

    def _stop(self) -> None:
        if self._guardian.returncode is not None:
            return
        os.close(self._life)
        deadline = time.monotonic() + self._grace_seconds + _SECONDS_TO_CLEAN_UP
        while not self._ended and time.monotonic() < deadline:
            self._hear(_POLL_SECONDS)
        os.kill(self._guardian.pid, signal.SIGKILL)
        # Not waited for yet: so the number of its session stays taken.
        os.waitid(os.P_PID, self._guardian.pid, os.WEXITED | os.WNOWAIT)
        self._finish_for_the_guardian()
        self._guardian.wait()
        self._ended, self._status = True, _KILLED if self._status is None else self._status
        os.close(self._tells)
        if self._pipe:
            self._pipe.end()

    def _finish_for_the_guardian(self) -> None:
        """Do what it has not done, where it was killed or hangs."""
        end_descendants(self._guardian.pid)
        record = read_record(self._record)
        if record is None:
            return
        self.left += remove_what_is_left(record.folder, record.segments)
        with suppress(OSError):
            self._record.unlink()


def _with_caches(environment: Mapping[str, str]) -> dict[str, str]:
    """All variables of a process; what PyTorch compiles is not kept in its own ``TMPDIR``."""
    whole = {**os.environ, **environment}
    with suppress(KeyError, OSError):  # a user without a name
        cache = Path(_temporary(whole), f"torchinductor_{getpass.getuser()}")
        return {"TORCHINDUCTOR_CACHE_DIR": str(cache), **whole}
    return whole


def _temporary(environment: Mapping[str, str]) -> str:
    """Where a process with these variables would have its temporary files."""
    wanted = environment.get("TMPDIR", "")
    return wanted if Path(wanted).is_absolute() and Path(wanted).is_dir() else tempfile.gettempdir()


def last_lines(log: Path, count: int = 30, start: int = 0) -> str:
    """The end of a log after its first ``start`` bytes, for an error message."""
    with log.open("rb") as lines:
        lines.seek(start)
        return b"".join(deque(lines, maxlen=count)).decode(errors="replace").rstrip()
