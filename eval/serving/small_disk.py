# SPDX-License-Identifier: Apache-2.0
"""A folder on a file system of its own that is soon full."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from eval.errors import ServerError
from eval.serving.leftovers import identity
from eval.serving.process_table import is_same

_BLOCK = 4096

_SOURCE = "eval-small-disk"
"""How these file systems are told from others, before the identity of who mounted one."""


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """Mount a tmpfs on a folder that is not there yet; what is in it at the end stays.

    Raises:
        ServerError: It cannot be mounted, as without being root.
    """
    folder.mkdir()
    source = "-".join([_SOURCE, *map(str, identity(os.getpid()))])
    options = ["-t", "tmpfs", "-o", f"size={kib}k"]
    done = subprocess.run(["mount", *options, source, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise ServerError(f"no small file system can be mounted on {folder}: {done.stderr.strip()}")
    try:
        yield
    finally:
        with tempfile.TemporaryDirectory() as aside:
            kept = shutil.copytree(folder, Path(aside) / "kept")
            if not _unmount(folder):
                raise ServerError(f"{folder} is mounted still: umount it")
            shutil.copytree(kept, folder, dirs_exist_ok=True)


def unmount_left(runs: Path) -> list[Path]:
    """Unmount those of harnesses that were killed; what was in one is gone.

    Args:
        runs: Folder of all runs.

    Returns:
        Where they were.
    """
    left = [
        Path(one.mountpoint)
        for one in psutil.disk_partitions(all=True)
        if one.device.startswith(f"{_SOURCE}-")
        and Path(one.mountpoint).is_relative_to(runs.resolve())
        and not is_same(*map(int, one.device.removeprefix(f"{_SOURCE}-").split("-")))
    ]
    return [folder for folder in left if _unmount(folder)]


def _unmount(folder: Path) -> bool:
    """Whether it could be: what another user has mounted stays."""
    return subprocess.run(["umount", "--lazy", str(folder)], capture_output=True).returncode == 0


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
