# SPDX-License-Identifier: Apache-2.0
"""Whether what a command is to write can be written, before it works for hours."""

import os
import shutil
import tempfile
from pathlib import Path

from eval.errors import PreflightError

_LEAST_FREE_BYTES = 200 * 2**20
"""Logs, answers and events of a run, and what it is resumed from."""


def require_file(file: Path | None, option: str, name: str = "") -> None:
    """Refuse a file that cannot be written.

    Args:
        file: None: nothing is to be written.
        option: That names it.
        name: Of the file in it, if ``file`` is a folder and may be one.

    Raises:
        PreflightError: It is a device, or a folder, or below one that cannot be written.
    """
    if file is None:
        return
    try:
        if file.is_dir() and name:
            file /= name
        if file.is_dir():
            raise PreflightError(f"{option} {file} is a folder: name a file")
        if _is_there(file) and not file.is_file():
            raise PreflightError(f"{option} {file} is a device or a pipe: name a file")
        # The folder decides, whether a file there is replaced or not.
        _try_to_write(Path(os.path.realpath(file)).parent)
        if file.exists():
            with file.open("ab"):
                pass
    except (OSError, ValueError) as error:
        raise PreflightError(
            f"{option} {file} cannot be written: {_reason(error)}. Name another file"
        ) from error


def require_folder(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or too little.

    Raises:
        PreflightError: Says why.
    """
    try:
        found = _try_to_write(folder)
        free = shutil.disk_usage(found).free
    except (OSError, ValueError) as error:
        raise PreflightError(
            f"{folder} cannot be written: {_reason(error)}. Runs are kept in the folder runs of "
            "the one that you are in: make it writable, or go to another"
        ) from error
    if free < _LEAST_FREE_BYTES:
        raise PreflightError(
            f"{folder}: {free / 2**20:.0f} MiB are free on its disk, and a run may take "
            f"{_LEAST_FREE_BYTES / 2**20:.0f}. Make room"
        )


def _is_there(path: Path) -> bool:
    """Unlike `Path.exists`, refuses a link that leads in a circle.

    Raises:
        OSError: Nobody could look there.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _try_to_write(folder: Path) -> Path:
    """Write into a folder, or into the nearest above it that is there, and leave nothing."""
    there = folder.absolute()
    while not _is_there(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(0, f"{there} is not a folder")
    with tempfile.TemporaryFile(dir=there) as probe:
        probe.write(b"1")
        probe.flush()
    # Some file systems take files that have no name, and no others.
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(0, f"{there} may not be written")
    return there


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
