# SPDX-License-Identifier: Apache-2.0
"""What vLLM's own log says of rearrangements: the only evidence when the plugin is turned off."""

import re
from pathlib import Path
from typing import NamedTuple

# Every release from 0.18.0 to 0.33.0 prints this on rank 0 when a rearrangement begins, and also
# when it only reserves memory for one, marked as below. In async mode nothing tells its end.
_BEGINS = re.compile(rb"Rearranging experts (?!.*\(profile\)).*\.\.\.")
_BEGINS_OR_RESERVES = re.compile(rb"Rearranging experts\b")
# Among the arguments that vLLM prints when it starts.
_TURNED_ON = re.compile(rb"enable_eplb'?\s*[:=]\s*True")
_SPEAKS = re.compile(rb"\bINFO\b")


class LogSays(NamedTuple):
    """A whole log."""

    speaks: bool
    """It has messages of the level at which rearrangements are told."""
    rearrangements: int
    """That began, at any time."""
    eplb: bool
    """EPLB was on: a rearrangement began or was prepared, or vLLM lists the option."""


def read_log(log: Path) -> LogSays | None:
    """What a log says; None: there is no file."""
    try:
        text = log.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    on = _BEGINS_OR_RESERVES.search(text) or _TURNED_ON.search(text)
    return LogSays(_SPEAKS.search(text) is not None, len(_BEGINS.findall(text)), on is not None)


class LogTail:
    """Counts in a log that is still being written, reading each line once."""

    def __init__(self, log: Path, start: int) -> None:
        """Begin at byte ``start``, where a line does."""
        self._log, self._read = log, start
        self._rearrangements = 0

    def rearrangements(self) -> int:
        """Those that have begun until now."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        self._rearrangements += len(_BEGINS.findall(whole))
        return self._rearrangements


def count_rearrangements(log: Path, start: int = 0, end: int | None = None) -> int:
    """Rearrangements that began, in what was written from byte ``start`` to byte ``end``."""
    with log.open("rb") as file:
        file.seek(start)
        return len(_BEGINS.findall(file.read() if end is None else file.read(max(0, end - start))))
