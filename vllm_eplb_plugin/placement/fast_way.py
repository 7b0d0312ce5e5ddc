# SPDX-License-Identifier: Apache-2.0
"""What makes EPLB faster where it can be had, and never keeps a server from starting."""

import functools
import importlib
import logging
from dataclasses import dataclass

from vllm_eplb_plugin.placement.compiling import numba_cache_problem

logger = logging.getLogger("vllm.eplb_plugin")


@dataclass(frozen=True)
class FastWay:
    """A fast way, and whether it can be taken here."""

    name: str
    """Such as ``plans by numba``."""
    otherwise: str
    """What is done without it."""
    problem: str | None
    """Why it cannot be taken; None: it can."""

    @property
    def warning(self) -> str:
        """The sentence that tells that it cannot be taken."""
        return f"{self.otherwise}, which is slower: {self.problem}"

    def is_open(self) -> bool:
        """Say whether it can be taken; why not, or what it costs, is logged once a process."""
        warning = numba_cache_problem() if self.problem is None else self.warning
        if warning is not None:
            _warn_once(warning)
        return self.problem is None


def import_problem(module: str) -> str | None:
    """Say why a module that only makes things faster cannot be imported; None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # of a library, its compiler or a file system: go the slower way
        return describe(error)
    return None


def describe(error: Exception) -> str:
    """Describe an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@functools.cache
def _warn_once(warning: str) -> None:
    logger.warning("%s", warning)
