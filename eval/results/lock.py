# SPDX-License-Identifier: Apache-2.0
"""One evaluation at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eval.errors import RunFolderError


@contextmanager
def alone_in(folder: Path, instead: str) -> Iterator[None]:
    """Keep other evaluations out of ``folder``, which need not be there, by a file beside it.

    Args:
        folder: For nobody else inside the context.
        instead: What a second one can do.

    Raises:
        RunFolderError: Another evaluation is using it.
    """
    absolute = folder.absolute()
    absolute.parent.mkdir(parents=True, exist_ok=True)
    with (absolute.parent / f".{absolute.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"another evaluation is using {folder}: wait for it, or {instead}"
            ) from error
        yield
