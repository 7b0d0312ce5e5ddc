# SPDX-License-Identifier: Apache-2.0
"""The folder in which ranks say how they are, made before there are any."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE


def make_status_folder() -> Path:
    """Find the folder that the environment names, or make one that lasts as long as this process.

    API servers and engines inherit the variable of the process that starts them.

    Raises:
        OSError: None can be made.
    """
    if (known := os.environ.get(FOLDER_VARIABLE)) is not None:
        return Path(known)
    # Only its user may enter it.
    folder = tempfile.mkdtemp(prefix="vllm-eplb-")
    os.environ[FOLDER_VARIABLE] = folder
    atexit.register(_remove, folder, os.getpid())
    return Path(folder)


def _remove(folder: str, maker: int) -> None:
    # A process that was forked from the maker may end while it serves.
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
