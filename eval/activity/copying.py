# SPDX-License-Identifier: Apache-2.0
"""Takes a rank's events from the folder of a server that runs on."""

import re
from pathlib import Path

_BLOCK = 2**20
_TIME = re.compile(rb'"time": ?(?P<time>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)')


def copy_events(file: Path, to: Path, since: float | None) -> None:
    """Copy the whole lines of one server's life.

    The last line may be in the middle of being written, and a folder may have been written into
    by an earlier server of that deployment, whose events come first.

    Args:
        file: Of one rank.
        to: Is written.
        since: When the server was started, in Unix seconds; None: copy from the first line on.

    Raises:
        OSError: It cannot be read, or the copy not written.
    """
    with file.open("rb") as source, to.open("wb") as copy:
        if since is not None:
            while (line := source.readline()) and _is_before(line, since):
                pass
            copy.write(line)
        while block := source.read(_BLOCK):
            copy.write(block)
    _cut_after_last_line(to)


def _is_before(line: bytes, since: float) -> bool:
    found = _TIME.search(line)
    return found is not None and float(found["time"]) < since


def _cut_after_last_line(file: Path) -> None:
    with file.open("rb+") as opened:
        end = opened.seek(0, 2)
        while end:
            start = max(0, end - _BLOCK)
            opened.seek(start)
            newline = opened.read(end - start).rfind(b"\n")
            if newline >= 0:
                opened.truncate(start + newline + 1)
                return
            end = start
        opened.truncate(0)
