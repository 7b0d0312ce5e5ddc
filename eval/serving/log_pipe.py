# SPDX-License-Identifier: Apache-2.0
"""From what a process writes to its log, line by line and without secrets."""

import fcntl
import os
import select
import struct
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

_MOST = 2**16
_LONGEST_LINE = 2**20
_POLL_SECONDS = 0.01
_SECONDS_TO_CATCH_UP = 5.0


class LogPipe:
    """A pipe into a file."""

    def __init__(self, log: Path, hide: Callable[[str], str]) -> None:
        self._hide = hide
        self._reading, self.written_by = os.pipe()
        """For the process that writes; nothing ends as long as anybody has it open."""
        self._log = log.open("ab", buffering=0)
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def catch_up(self) -> None:
        """Wait until whole lines that were written are in the log."""
        deadline = time.monotonic() + _SECONDS_TO_CATCH_UP
        while self._thread.is_alive() and time.monotonic() < deadline:
            with self._busy:
                if not self._waiting():
                    return
            time.sleep(_POLL_SECONDS)

    def end(self) -> None:
        """Wait for what is left; one that outlives its group may hold the pipe open for ever."""
        self._thread.join(_SECONDS_TO_CATCH_UP)

    def _waiting(self) -> int:
        """Bytes that nobody has read."""
        try:
            answer = fcntl.ioctl(self._reading, termios.FIONREAD, bytes(4))
        except OSError:  # closed: all was read
            return 0
        count: int = struct.unpack("i", answer)[0]
        return count

    def _copy(self) -> None:
        rest = b""
        while True:
            # Read under the lock: what was read but is not in the log yet counts as waiting.
            select.select([self._reading], [], [])
            with self._busy:
                read = os.read(self._reading, _MOST)
                whole, newline, rest = (rest + read).rpartition(b"\n")
                if not read or len(rest) > _LONGEST_LINE:
                    whole, newline, rest = whole + newline + rest, b"", b""
                self._write(whole + newline)
            if not read:
                break
        self._log.close()
        os.close(self._reading)

    def _write(self, text: bytes) -> None:
        # Not decoded strictly: what is no UTF-8 stays as it is.
        hidden = self._hide(text.decode(errors="surrogateescape"))
        try:
            self._log.write(hidden.encode(errors="surrogateescape"))
        except OSError:
            # A full disk: who writes must not wait for it, and notices it elsewhere.
            return
