# SPDX-License-Identifier: Apache-2.0
"""Standard output and error that cannot end a command: closed, full, or of another encoding."""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from typing_extensions import override


class _Output(io.TextIOWrapper):
    """Text that goes nowhere from the first time on that it cannot be written."""

    lost = False
    """Whether that has happened."""

    @override
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._lose()
            return len(text)

    @override
    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        # What waits to be written is tried again at the latest when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        with suppress(OSError):
            super().flush()


def keep_output() -> None:
    """Make standard output and error able to lose what they cannot write.

    Call it before anything is opened: a file would take the number of a closed stream, and get what
    is printed.
    """
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    for number in closed:
        # The lowest number that is free.
        os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    sys.stdout = _kept(sys.stdout, 1)
    sys.stderr = _kept(sys.stderr, 2)
    sys.stdout.lost = 1 in closed


def output_is_lost() -> bool:
    """Whether somebody who reads standard output has not got all of it."""
    sys.stdout.flush()
    return bool(getattr(sys.stdout, "lost", False))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _kept(stream: TextIO | None, number: int) -> _Output:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    binary = open(number, "wb", closefd=False)  # noqa: SIM115 - stays open to the end
    # Lines at once: whoever follows a log file of a long run sees where it is.
    return _Output(binary, encoding=encoding, errors="backslashreplace", line_buffering=True)
