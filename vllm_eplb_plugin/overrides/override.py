# SPDX-License-Identifier: Apache-2.0
"""What an override of vLLM is, and which releases get it."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from packaging.specifiers import SpecifierSet

Kind = Literal["replace", "hook", "pretend", "break"]
"""What an override is for.

``replace`` does vLLM's work in another way; ``hook`` looks on: it calls the original with the same
arguments, or refuses; ``pretend`` lets a CPU, or one GPU, stand for the several GPUs of EPLB, in
loopback; ``break`` is a fault, asked for by a setting, to see that a check notices.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Override:
    """One function, method or instance attribute of vLLM that the plugin overrides."""

    target: str
    """``package.module:Class.name`` or ``package.module:name``, where its user looks it up."""
    signature: str | None
    """Parameters without annotations, as `parameters_of` writes them. None: the target is no
    function but an attribute, of a module or one that a class's ``__init__`` assigns."""
    replace: Callable[[Any], Any]
    """Takes what is there now (None for an instance's attribute), returns what shall be there."""
    fixes: str
    """Which failure of vLLM this mends; of the kind ``break``, what it breaks."""
    delete_when: str
    """When this override is no longer needed."""
    kind: Kind
    """What it is for."""
    releases: str = ""
    """The vLLM releases that need it, as a version specifier such as ``>=0.20,<0.29``; empty:
    every supported one."""

    @property
    def module(self) -> str:
        """The module of vLLM in which the target is looked up."""
        return self.target.partition(":")[0]


def parameters_of(function: Callable[..., Any]) -> str:
    """Write names, kinds and defaults of a function's parameters, without annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def is_among(release: str, releases: str) -> bool:
    """Say whether a version specifier names a vLLM release, also a candidate for one."""
    return SpecifierSet(releases).contains(release, prereleases=True)


def select(overrides: Iterable[Override], release: str) -> tuple[Override, ...]:
    """Select the overrides that a vLLM release needs."""
    return tuple(override for override in overrides if is_among(release, override.releases))
