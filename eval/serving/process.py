# SPDX-License-Identifier: Apache-2.0
"""A child process with everything it starts: one log, and nothing of it stays behind."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from eval.interrupts import interrupts_wait
from eval.secrets import SECRETS
from eval.serving.log_pipe import LogPipe

_POLL_SECONDS = 0.1


class ChildProcess:
    """A context: the process runs inside it, and its whole group is gone after it."""

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
        self._environment = {**os.environ, **environment}
        self._grace_seconds = grace_seconds

    @property
    def log(self) -> Path:
        """What it has written so far."""
        if self._pipe:
            self._pipe.catch_up()
        return self._log

    def __enter__(self) -> Self:
        started = False
        try:
            # A session of its own: Ctrl-C in the terminal is for the harness, which then stops it.
            with interrupts_wait(), self._output() as output:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                started = True
        except KeyboardInterrupt:
            # Where entering fails there is no context whose end would stop the process.
            if started:
                self._stop()
            raise
        return self

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
        """End it with its whole group, and start it again; the log goes on."""
        with interrupts_wait():
            self._stop()
        self.__enter__()

    def running(self) -> bool:
        """Whether the process itself, not its children, is alive."""
        # WNOWAIT leaves the ended process in the table, so that the number of its group stays
        # taken until _stop() has sent the last signal to that group.
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._process.returncode is None and (
            os.waitid(os.P_PID, self._process.pid, options) is None
        )

    def wait(self) -> int:
        """Wait for the end of the process; its exit status, negative for a signal."""
        while self.running():
            time.sleep(_POLL_SECONDS)
        if self._process.returncode is not None:
            return self._process.returncode
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _stop(self) -> None:
        if self._process.returncode is not None:
            return
        if self.running():
            os.kill(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + self._grace_seconds
            while self.running() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._pipe:
            self._pipe.end()


def last_lines(log: Path, count: int = 30, start: int = 0) -> str:
    """The end of a log after its first ``start`` bytes, for an error message."""
    with log.open("rb") as lines:
        lines.seek(start)
        return b"".join(deque(lines, maxlen=count)).decode(errors="replace").rstrip()
