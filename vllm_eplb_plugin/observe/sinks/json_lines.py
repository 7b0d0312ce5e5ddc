# SPDX-License-Identifier: Apache-2.0
"""A file of JSON lines that is whole whatever happens to its disk."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PIECE = 4096
"""Bytes, which take some 30 microseconds."""


class JsonLines:
    """A file to which objects are appended, a line each.

    A line that a full disk cuts off is taken back. A file that is taken away is made again.
    """

    def __init__(self, file: Path) -> None:
        """Open the file, and make its folder.

        Raises:
            OSError: It cannot be opened.
        """
        self._path = file
        self._file: int | None = None
        self._open()

    def write(self, line: Mapping[str, Any]) -> Iterator[None]:
        """Append one object.

        Yields:
            Between pieces, of which none takes the interpreter's lock for long: a placement has
            tens of thousands of numbers.

        Raises:
            OSError: It cannot be written; the file ends with the line before.
        """
        data, paused = bytearray(), 0
        for piece in _pieces(line):
            data += piece.encode()
            if len(data) - paused > _PIECE:
                paused = len(data)
                yield
        self._append(bytes(data))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, data: bytes) -> None:
        file = self._open()
        end = os.fstat(file).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device has no end
                os.ftruncate(file, end)
            raise

    def _open(self) -> int:
        if self._file is not None and os.fstat(self._file).st_nlink == 0:
            self.close()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
        return self._file


def _pieces(line: Mapping[str, Any]) -> Iterator[str]:
    separator = "{"
    for name, value in line.items():
        yield f"{separator}{json.dumps(name)}:"
        yield from _rows(value) if _is_rows(value) else (_dump(value),)
        separator = ","
    yield "}\n"


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _rows(rows: list[list[Any]]) -> Iterator[str]:
    separator = "["
    for row in rows:
        yield separator + _dump(row)
        separator = ","
    yield "]"


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
