# SPDX-License-Identifier: Apache-2.0
"""Bind overrides into vLLM: check every target first, bind once, refuse loudly."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import SpecifierSet

_bound: dict[str, Any] = {}


class OverrideError(RuntimeError):
    """vLLM does not look as overrides expect; nothing was bound."""

    def __init__(self, problems: list[str]) -> None:
        release = getattr(sys.modules.get("vllm.version"), "__version__", "of unknown release")
        super().__init__(
            f"vLLM {release} does not look as vllm-eplb-plugin expects, so nothing was "
            "overridden:\n  "
            + "\n  ".join(problems)
            + "\nInstall a plugin release that supports this vLLM, or turn the plugin off with "
            "EPLB_PLUGIN='{\"enabled\": false}' (EPLB then is vLLM's own)."
        )


@dataclass(frozen=True)
class Override:
    """One function, method or instance attribute of vLLM that the plugin replaces."""

    target: str
    """``package.module:Class.name`` or ``package.module:name``, where its user looks it up."""
    signature: str | None
    """Parameters without annotations, as `parameters_of` writes them. None: the target is no
    function but an attribute, of a module or one that a class's ``__init__`` assigns."""
    replace: Callable[[Any], Any]
    """Takes what is there now (None for an instance's attribute), returns what shall be there."""
    fixes: str
    """Which failure of vLLM this mends."""
    delete_when: str
    """When this override is no longer needed."""
    releases: str = ""
    """The vLLM releases that need it, as a version specifier such as ``>=0.20,<0.29``; empty:
    every supported one."""


def parameters_of(function: Callable[..., Any]) -> str:
    """Names, kinds and defaults of a function's parameters, without annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def find_mismatches(overrides: Iterable[Override]) -> list[str]:
    """Compare every target with what its override expects; an empty list means all fit."""
    return [problem for override in overrides if (problem := _mismatch(override))]


def is_among(release: str, releases: str) -> bool:
    """Whether a vLLM release, also a candidate for one, is named by a version specifier."""
    return SpecifierSet(releases).contains(release, prereleases=True)


def select(overrides: Iterable[Override], release: str) -> tuple[Override, ...]:
    """Those overrides that a vLLM release needs."""
    return tuple(override for override in overrides if is_among(release, override.releases))


def bind(overrides: Iterable[Override]) -> list[str]:
    """Bind overrides whose targets all fit; binding again changes nothing.

    Returns:
        The targets bound by this call.

    Raises:
        OverrideError: At least one target does not fit. Nothing was bound.
    """
    overrides = list(overrides)
    if problems := find_mismatches(overrides):
        raise OverrideError(problems)
    return [override.target for override in overrides if _bind_one(override)]


def _mismatch(override: Override) -> str | None:
    try:
        owner, name = _resolve(override.target)
        current = _current(owner, name, override)
    except (ImportError, AttributeError) as error:
        return f"{override.target} does not exist: {error}"
    if override.signature is None:
        return None
    found = parameters_of(current)
    if found == override.signature:
        return None
    return f"{override.target} has the parameters {found}, expected {override.signature}"


def _bind_one(override: Override) -> bool:
    owner, name = _resolve(override.target)
    current = _current(owner, name, override)
    if override.target in _bound and _bound[override.target] is vars(owner).get(name):
        return False
    _bound[override.target] = override.replace(current)
    setattr(owner, name, _bound[override.target])
    return True


def _resolve(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def _current(owner: Any, name: str, override: Override) -> Any:
    if override.signature is not None or inspect.ismodule(owner):
        return getattr(owner, name)
    assigned = inspect.unwrap(owner.__init__).__code__.co_names
    if name not in vars(owner) and name not in assigned:
        raise AttributeError(f"{owner.__name__}.__init__ assigns no attribute {name!r}")
    return vars(owner).get(name)
