# SPDX-License-Identifier: Apache-2.0
"""When a server's log said something first, as exactly as that can be known.

Its own times have whole seconds only, and whoever reads it may be late on a busy machine.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from typing_extensions import Self

_POLL_SECONDS = 0.1
_WRITTEN = re.compile(r" (\d\d-\d\d \d\d:\d\d:\d\d) \[")


class Said(NamedTuple):
    """A line, and when it had been said."""

    time: float
    """In Unix seconds, and not before it was said."""
    line: str


class LogWatch:
    """A context: inside it, each pattern's first line is looked for as it is written."""

    def __init__(self, log: Path, patterns: Mapping[str, str]) -> None:
        """Look from the end of the log as it is now."""
        self.found: dict[str, Said] = {}
        self._log, self._at = log, log.stat().st_size
        self._patterns = {name: re.compile(pattern) for name, pattern in patterns.items()}
        self._rest = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._at)
            written = log.read()
        now = time.time()
        self._at += len(written)
        *lines, self._rest = (self._rest + written).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            for name, pattern in self._patterns.items():
                if name not in self.found and pattern.search(text):
                    self.found[name] = Said(_said_by(text, now), text)


def _said_by(line: str, found: float) -> float:
    """When a line that was found then had been written: at the latest as its second ended."""
    written = _WRITTEN.search(line)
    if written is None:
        return found
    nearest = min(
        _seconds(written[1], found), key=lambda second: abs(second - found), default=found
    )
    return min(found, nearest + 1)


def _seconds(written: str, found: float) -> Iterator[float]:
    """Those of which a time without a year may tell."""
    this_year = time.localtime(found).tm_year
    for year in (this_year - 1, this_year, this_year + 1):
        with contextlib.suppress(ValueError):  # 29 February
            yield time.mktime(time.strptime(f"{year}-{written}", "%Y-%m-%d %H:%M:%S"))
