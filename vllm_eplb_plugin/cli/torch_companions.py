# SPDX-License-Identifier: Apache-2.0
"""Packages that are built for one build of torch each, where one keeps vLLM from being imported."""

import importlib.metadata
import traceback
from collections.abc import Iterator

from vllm_eplb_plugin.placement.fast_way import describe

_COMPANIONS = {
    "torchvision": "images and videos",
    "torchaudio": "sounds",
    "torchcodec": "videos and sounds",
}
"""Each with what models take that need it."""


def companion_problem(error: Exception) -> str | None:
    """Say which of them does not go with the torch that is there, and what helps; None: none of
    them is to blame.

    Args:
        error: What importing vLLM, or a part of it, raised.
    """
    *_, first = chain = list(_chain(error))
    # Such a one may fit, and lacks another package.
    if isinstance(first, ModuleNotFoundError):
        return None
    packages = set(_packages(chain))
    name = next((name for name in _COMPANIONS if name in packages), None)
    try:
        return None if name is None else _problem(name, first)
    except importlib.metadata.PackageNotFoundError:  # nothing that an installer could replace
        return None


def _problem(name: str, error: Exception) -> str:
    version, torch = (importlib.metadata.version(one) for one in (name, "torch"))
    backend = torch.partition("+")[2] or "auto"
    return (
        f"{name} {version} cannot be imported ({describe(error)}), because it is not built for the "
        f"torch {torch} that is there: both have to be of one release and of one kind, for CPUs or "
        f"for the same GPUs. Remove it, since only models that take {_COMPANIONS[name]} need it: "
        f"pip uninstall {name}. Or install the one that fits: uv pip install --torch-backend "
        f"{backend} --reinstall-package {name} 'torch=={torch}' {name}"
    )


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """The error, what it came of, and so on to the first one."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or error.__context__


def _packages(errors: list[Exception]) -> Iterator[str]:
    """The package of every function that an error went through."""
    for error in errors:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            yield str(frame.f_globals.get("__name__")).partition(".")[0]
