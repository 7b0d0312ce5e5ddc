# SPDX-License-Identifier: Apache-2.0
"""Bind overrides into vLLM, and take them back: check every target first, refuse loudly."""

import importlib
import inspect
import sys
from collections.abc import Iterable
from typing import Any

from vllm_eplb_plugin.overrides.bound import Bound, BoundOverrides
from vllm_eplb_plugin.overrides.override import Override, parameters_of

_bound = BoundOverrides()


class OverrideError(RuntimeError):
    """vLLM does not look as overrides expect; nothing was bound."""

    def __init__(self, problems: list[str]) -> None:
        release = getattr(sys.modules.get("vllm.version"), "__version__", "of unknown release")
        super().__init__(
            f"vLLM {release} does not look as vllm-eplb-plugin expects, so nothing was "
            "overridden:\n  "
            + "\n  ".join(problems)
            + "\nInstall a plugin release that supports this vLLM, serve without --enable-eplb, or "
            "turn the plugin off with EPLB_PLUGIN='{\"enabled\": false}' (EPLB then is vLLM's own)."
        )


class UnbindError(RuntimeError):
    """Somebody else has replaced what was bound; nothing was taken back."""

    def __init__(self, replaced: Iterable[Bound]) -> None:
        super().__init__(
            "vllm-eplb-plugin took none of its overrides back:\n  "
            + "\n  ".join(bound.describe_replacement() for bound in replaced)
            + "\nPut back the plugin's override first, and take it back then."
        )


def find_mismatches(overrides: Iterable[Override]) -> list[str]:
    """Compare every target with what its override expects; an empty list means all fit."""
    return [problem for override in overrides if (problem := _mismatch(override))]


def bind(overrides: Iterable[Override]) -> list[str]:
    """Bind overrides whose targets all fit; a target that is already bound stays as it is.

    Returns:
        The targets bound by this call.

    Raises:
        OverrideError: At least one target does not fit, or was replaced by somebody else after it
            had been bound. Nothing was bound.
    """
    overrides = list(overrides)
    if problems := find_mismatches(overrides):
        raise OverrideError(problems)
    done: list[Bound] = []
    try:
        for override in overrides:
            done.extend(_bind_one(override))
    except BaseException:
        for bound in reversed(done):
            _bound.take_back(bound)
        raise
    return [bound.override.target for bound in done]


def bind_what_is_there(overrides: Iterable[Override]) -> list[str]:
    """Bind overrides that take any arguments and only look who calls, so whatever the signature.

    Returns:
        What is wrong with targets that are not there, or that somebody else has replaced after
        they had been bound, and so were not bound.
    """
    problems = []
    for override in overrides:
        if problem := _mismatch(override, any_signature=True):
            problems.append(problem)
        else:
            _bind_one(override)
    return problems


def unbind(overrides: Iterable[Override]) -> list[str]:
    """Put back exactly what was there before; an override that is not bound is left out.

    For tests, and before there is any `EplbState`: one that was made with the overrides does not
    work without them.

    Returns:
        The targets taken back by this call.

    Raises:
        UnbindError: Somebody else has replaced what was bound. Nothing was taken back.
    """
    every = {id(bound): bound for override in overrides for bound in _bound.of(override)}
    if replaced := [bound for bound in every.values() if not bound.is_in_force]:
        raise UnbindError(replaced)
    for bound in every.values():
        _bound.take_back(bound)
    return [bound.override.target for bound in every.values()]


def _mismatch(override: Override, any_signature: bool = False) -> str | None:
    try:
        owner, name = _resolve(override.target)
        current = _current(owner, name, override)
        if (bound := _bound.at(owner, name)) is not None:
            if not bound.is_in_force:
                return bound.describe_replacement()
            current = bound.replaced
        if override.signature is None or any_signature:
            return None
        found = parameters_of(current)
    except (ImportError, AttributeError) as error:
        return f"{override.target} does not exist: {error}"
    except (TypeError, ValueError) as error:
        return f"{override.target} is not a function that can be overridden: {error}"
    if found == override.signature:
        return None
    return f"{override.target} has the parameters {found}, expected {override.signature}"


def _bind_one(override: Override) -> list[Bound]:
    owner, name = _resolve(override.target)
    if _bound.at(owner, name) is not None:
        return []
    return [_bound.put(override, owner, name, _current(owner, name, override))]


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
