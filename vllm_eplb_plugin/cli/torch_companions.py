# SPDX-License-Identifier: Apache-2.0
"""Packages that are built for one build of torch each, where one keeps vLLM from being imported."""

import importlib.metadata
import re
import traceback
from collections.abc import Iterator

from vllm_eplb_plugin.placement.fast_way import describe

_COMPANIONS = {
    "torchvision": "images and videos",
    "torchaudio": "sounds",
}
"""Each with what models take that need it."""
_OF_TORCH = ("torch", "ctypes", "importlib", "_frozen_importlib", "_frozen_importlib_external")
"""What a companion goes through where it meets a torch that it is not built for."""
_ON_AN_INDEX = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu|")
"""Builds of torch by what follows the plus; others were built by somebody else."""


def companion_problem(error: Exception) -> str | None:
    """Say which of them does not go with the torch that is there, and what helps; None: none of
    them is to blame.

    Args:
        error: What importing vLLM, or a part of it, raised.
    """
    *_, first = _chain(error)
    # Such a one may fit, and lacks another package.
    if isinstance(first, ModuleNotFoundError):
        return None
    name = _to_blame(list(_packages(first)))
    try:
        return None if name is None else _problem(name, first)
    except importlib.metadata.PackageNotFoundError:  # nothing that an installer could replace
        return None


def _problem(name: str, error: Exception) -> str:
    version, torch = (importlib.metadata.version(one) for one in (name, "torch"))
    build = torch.partition("+")[2]
    other = f"Or get a {name} that was built with that torch"
    if _ON_AN_INDEX.fullmatch(build):
        other = (
            f"Or install the one that fits: uv pip install --torch-backend {build or 'auto'} "
            f"--reinstall-package {name} 'torch=={torch}' {name}"
        )
    return (
        f"{name} {version} cannot be imported ({describe(error)}), because it is not built for the "
        f"torch {torch} that is there: they have to be made for each other, and both for CPUs or "
        f"for the same GPUs. Remove it, since only models that take {_COMPANIONS[name]} need it: "
        f"pip uninstall {name}. {other}"
    )


def _to_blame(packages: list[str]) -> str | None:
    """The companion that an error came from, itself or in torch, and not in another package."""
    places = [place for place, name in enumerate(packages) if name in _COMPANIONS]
    if not places or not set(packages[places[-1] + 1 :]) <= set(_OF_TORCH):
        return None
    return packages[places[-1]]


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """The error, what it came of, and so on to the first one."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or error.__context__


def _packages(error: Exception) -> Iterator[str]:
    """The package of every function that an error went through, where it was raised the last."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield str(frame.f_globals.get("__name__")).partition(".")[0]
