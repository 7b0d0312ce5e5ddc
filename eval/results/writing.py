# SPDX-License-Identifier: Apache-2.0
"""Write files by name, so that nothing is replaced that is more than a file."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from eval.errors import RunFolderError


def write_atomically(file: Path, text: str) -> None:
    """Write ``text`` so that ``file`` is never there in part.

    A symbolic link stays, and what it points to is replaced. A device, a pipe and what this process
    prints to are no files that could be replaced: they are written to. What UTF-8 has not, which is
    half a surrogate pair, is written as JSON and Python escape it.

    Raises:
        RunFolderError: It cannot be written; names the file and the reason.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        descriptor = _open_what_stays(file)
        if descriptor is None:
            _replace(Path(os.path.realpath(file)), content)
        else:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
    except OSError as error:
        raise RunFolderError(f"cannot write {file}: {error.strerror}") from error


def write_named(file: Path, text: str) -> None:
    """Write what a person wants in this place; folders that are missing are made.

    Raises:
        RunFolderError: It cannot be written; names the file and the reason.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write {file}: {error.strerror}: {error.filename}") from error
    write_atomically(file, text)


def is_folder(path: Path) -> bool:
    """Whether it is one; no if it cannot be looked at, which writing to it then tells."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _open_what_stays(file: Path) -> int | None:
    """A descriptor of what is there and cannot be replaced; none: it is a file, or nothing yet."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    # /dev/stdout may lead to a file, of which whoever opened it goes on writing the rest.
    for number in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(number), found):
                return os.dup(number)
    if stat.S_ISREG(found.st_mode):
        return None
    # A pipe that nobody reads is an error, and does not make this wait for ever.
    descriptor = os.open(file, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    os.set_blocking(descriptor, True)
    return descriptor


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(f"{file.name}.partial")
    try:
        with suppress(FileNotFoundError):
            partial.unlink()
        # Whatever else may have come to be there is not followed.
        with partial.open("xb") as opened:
            opened.write(content)
        if file.exists():
            partial.chmod(stat.S_IMODE(file.stat().st_mode))
        partial.replace(file)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
