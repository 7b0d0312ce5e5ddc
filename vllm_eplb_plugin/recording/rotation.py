# SPDX-License-Identifier: Apache-2.0
"""Keeps a folder of recordings below a size: the oldest files go."""

import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from vllm_eplb_plugin.recording.layout import place_of


class Rotation:
    """A rotation knows the files of a folder from the oldest to the newest.

    It takes away none that is not a file of a recording, and never the newest. Of processes that
    write into the same folder at once, as pipeline stages do, each keeps the bound for what it
    found and wrote.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Find what is there; that is none, where there is no folder yet.

        Args:
            folder: Of all starts of a server.
            max_bytes: Of all files together.
        """
        self._max_bytes = max_bytes
        self._files = deque((file, size) for _, file, size in sorted(_found(folder)))
        self._bytes = sum(size for _, size in self._files)

    def added(self, file: Path) -> None:
        """Take notice of a new file, and take the oldest away where that is needed.

        Raises:
            OSError: One cannot be taken away.
        """
        size = file.stat().st_size
        self._files.append((file, size))
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._files) > 1:
            oldest, size = self._files.popleft()
            self._bytes -= size
            oldest.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another file is in it
                oldest.parent.rmdir()


def _found(folder: Path) -> Iterator[tuple[int, Path, int]]:
    """Of each file when it was written, where it is, and its bytes."""
    for file in folder.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # another process has taken it away
            if _is_ours(file):
                status = file.stat()
                yield status.st_mtime_ns, file, status.st_size


def _is_ours(file: Path) -> bool:
    """Whether it is a file of a recording, or what was left of one by a crash."""
    name = file.name
    if name.endswith(".partial"):
        name = name.removeprefix(".").removesuffix(".partial")
    return place_of(file.with_name(name)) is not None
