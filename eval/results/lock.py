# SPDX-License-Identifier: Apache-2.0
"""One evaluation at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from eval.errors import RunFolderError


@contextmanager
def alone_in(folder: Path, instead: str) -> Iterator[None]:
    """Keep other evaluations out of ``folder``, which need not be there, by a file beside it.

    Args:
        folder: For nobody else inside the context.
        instead: What a second one can do.

    Raises:
        RunFolderError: Another evaluation is using it, or nothing can be written beside it.
    """
    absolute = folder.absolute()
    lock = FileLock(absolute.parent / f".{absolute.name}.lock", blocking=False)
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunFolderError(
            f"another evaluation is using {folder}: wait for it, or {instead}"
        ) from error
    except OSError as error:
        raise RunFolderError(f"cannot use {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
