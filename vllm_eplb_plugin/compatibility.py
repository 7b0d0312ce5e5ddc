# SPDX-License-Identifier: Apache-2.0
"""Which release's overrides the installed vLLM gets."""

import functools
import importlib
from dataclasses import dataclass

from vllm_eplb_plugin.overrides.binding import OverrideError, find_mismatches
from vllm_eplb_plugin.overrides.catalogue import overrides_at
from vllm_eplb_plugin.releases import (
    UnsupportedReleaseError,
    alternatives,
    known_release,
    neighbours,
    supported_releases,
)


@dataclass(frozen=True)
class Support:
    """The support that one vLLM gets: whose overrides, and whether it was tested."""

    installed: str
    """What it calls itself."""
    release: str
    """The release of the table whose overrides it gets."""
    tested: bool
    """Whether it is that release, and not only like it."""

    @property
    def warning(self) -> str:
        """The sentence that tells of a vLLM that was not tested."""
        return (
            f"vLLM {self.installed} is none of the releases that vllm-eplb-plugin was tested with "
            f"({supported_releases()[0]} to {supported_releases()[-1]}). All that it overrides "
            f"looks as in {self.release}, so it is used; when EPLB starts, experts of two layers "
            "are moved to other ranks and back, and it is not served if one is not where it "
            "should be. To be safe, compare answers with those without --enable-eplb, or install "
            "a tested release."
        )

    @property
    def alternatives(self) -> str:
        """What to do if it turns out not to work."""
        return alternatives()


def installed_support() -> Support:
    """Find the overrides for the vLLM that this process imports.

    Raises:
        UnsupportedReleaseError: See `support_for`.
    """
    return support_for(importlib.import_module("vllm.version").__version__)


@functools.cache
def support_for(version: str) -> Support:
    """Find the overrides for a vLLM that calls itself ``version``; this may import its EPLB.

    Raises:
        UnsupportedReleaseError: It is no release of the table, and those next to it differ in
            something that would be overridden.
    """
    if (known := known_release(version)) is not None:
        return Support(version, known, tested=True)
    problems: dict[str, list[str]] = {}
    for release in neighbours(version):
        problems[release] = _mismatches(release, "entry", "state", "runner")
        if not problems[release]:
            return Support(version, release, tested=False)
    raise UnsupportedReleaseError(version, problems)


def require_support() -> Support:
    """Find the overrides where EPLB is asked for, before a model is loaded.

    Raises:
        UnsupportedReleaseError: See `support_for`.
        OverrideError: It is a release of the table, changed in something that is overridden.
    """
    support = installed_support()
    if support.tested and (problems := _mismatches(support.release, "entry", "state")):
        raise OverrideError(problems)
    return support


def _mismatches(release: str, *moments: str) -> list[str]:
    try:
        overrides = overrides_at(release, *moments)
    except (ImportError, AttributeError) as error:  # a name that this vLLM has elsewhere
        return [f"{type(error).__name__}: {error}"]
    return find_mismatches(overrides)
