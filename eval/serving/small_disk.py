# SPDX-License-Identifier: Apache-2.0
"""A folder on a file system of its own that is soon full."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eval.errors import ServerError

_BLOCK = 4096


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """Mount a tmpfs on a folder that is not there yet; what is in it at the end stays.

    Raises:
        ServerError: It cannot be mounted, as without being root.
    """
    folder.mkdir()
    options = ["-o", f"size={kib}k"]
    done = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise ServerError(f"no small file system can be mounted on {folder}: {done.stderr.strip()}")
    try:
        yield
    finally:
        with tempfile.TemporaryDirectory() as aside:
            kept = shutil.copytree(folder, Path(aside) / "kept")
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            shutil.copytree(kept, folder, dirs_exist_ok=True)


_BALLAST = "ballast"


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Leave no byte in it meanwhile."""
    with (folder / _BALLAST).open("wb", buffering=0) as file, suppress(OSError):
        while True:  # until no space is left
            file.write(bytes(_BLOCK))
    try:
        yield
    finally:
        (folder / _BALLAST).unlink()
