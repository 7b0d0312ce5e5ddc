# SPDX-License-Identifier: Apache-2.0
"""Compile with numba, and keep the result where numba can keep it."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_cache_problems: list[str] = []


def compiled(
    signatures: str | list[str], uses: Sequence[ModuleType] = (), **options: Any
) -> Callable[[Any], Any]:
    """Compile as ``numba.njit`` does, but now, never while serving, and from its cache if it can.

    A cache only saves time. Where a package folder and a home cannot be written, a disk is full
    or an index is broken, numba raises instead of going without.

    Args:
        signatures: What is compiled.
        uses: Modules whose functions are compiled into this one.
        options: Of ``numba.njit``.
    """

    def compile_now(function: Any) -> Any:
        import numba

        if uses:
            # Numba looks whether the function's own file is newer than the cache, and at no other.
            function.__qualname__ += f"_{_digest(uses)}"

        try:
            return numba.njit(signatures, cache=True, **options)(function)
        except Exception as error:  # numba's, pickle's or the file system's
            without = numba.njit(signatures, **options)(function)  # fails if not for the cache
            _cache_problems.append(f"{type(error).__name__}: {error}")
            return without

    return compile_now


def _digest(modules: Sequence[ModuleType]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def numba_cache_problem() -> str | None:
    """Say what it costs that numba's cache could not be used, and what helps; None if it was."""
    if not _cache_problems:
        return None
    return (
        "numba cannot cache what it compiles for EPLB, so every process compiles again when it "
        "starts, for 1 to 3 s: set NUMBA_CACHE_DIR to an empty folder that the server's user can "
        f"write ({_cache_problems[0]})"
    )
