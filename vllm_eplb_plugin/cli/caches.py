# SPDX-License-Identifier: Apache-2.0
"""Folders of others that a server compiles into, and what it costs if they cannot be written.

Numba's is told of by `placement.compiling`.
"""

import os
import tempfile
from pathlib import Path


def cache_hints(on_cpu: bool) -> list[str]:
    """What this user cannot write of it, with the variable that names another folder."""
    return [hint for hint in (None if on_cpu else _triton_hint(), _vllm_hint()) if hint]


def _triton_hint() -> str | None:
    home = Path(os.environ.get("TRITON_HOME", "~")).expanduser()
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton" / "cache")
    if (problem := _write_problem(folder)) is None:
        return None
    return (
        f"Triton cannot keep what it compiles in {folder}, and then compiles nothing: EPLB commits "
        "by torch operations, and kernels of vLLM fail. Set TRITON_CACHE_DIR to a folder that the "
        f"server's user can write ({problem})"
    )


def _vllm_hint() -> str | None:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(os.environ.get("VLLM_CACHE_ROOT") or caches / "vllm").expanduser()
    if (problem := _write_problem(folder)) is None:
        return None
    return (
        f"vLLM cannot keep what torch.compile makes in {folder}, so that a server without "
        "--enforce-eager stops before it serves. Set VLLM_CACHE_ROOT to a folder that the server's "
        f"user can write ({problem})"
    )


def _write_problem(folder: Path) -> str | None:
    """Why no file can be made there, or where the folder would be made; nothing of it stays."""
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"full?")
            file.flush()
    except OSError as error:
        return f"{nearest}: {error.strerror}"
    return None
