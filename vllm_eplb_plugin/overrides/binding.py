# SPDX-License-Identifier: Apache-2.0
"""Bind overrides into vLLM: check every target first, bind once, refuse loudly."""

import importlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vllm_eplb_plugin.overrides.override import Override, parameters_of

_NOTHING = object()


@dataclass(frozen=True)
class _Binding:
    owner: Any
    name: str
    before: Any
    """What the owner itself had there, `_NOTHING` if it had inherited or not yet assigned it."""
    bound: Any

    def holds(self) -> bool:
        return vars(self.owner).get(self.name) is self.bound


_bindings: dict[str, _Binding] = {}


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


def find_mismatches(overrides: Iterable[Override]) -> list[str]:
    """Compare every target with what its override expects; an empty list means all fit."""
    return [problem for override in overrides if (problem := _mismatch(override))]


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


def bind_what_is_there(overrides: Iterable[Override]) -> list[str]:
    """Bind overrides that take any arguments and only look who calls, so whatever the signature.

    Returns:
        What is wrong with targets that are not there, and so were not bound.
    """
    problems = []
    for override in overrides:
        try:
            _bind_one(override)
        except (ImportError, AttributeError) as error:
            problems.append(f"{override.target} does not exist: {error}")
    return problems


def unbind(overrides: Iterable[Override]) -> list[str]:
    """Take overrides back, except where something else was put on top of them.

    Returns:
        The targets that are again as before.
    """
    done = []
    for target in (override.target for override in overrides):
        binding = _bindings.get(target)
        if binding is None or not binding.holds():
            continue
        if binding.before is _NOTHING:
            delattr(binding.owner, binding.name)
        else:
            setattr(binding.owner, binding.name, binding.before)
        del _bindings[target]
        done.append(target)
    return done


def _mismatch(override: Override) -> str | None:
    try:
        owner, name = _resolve(override.target)
        current = _current(owner, name, override)
        found = None if override.signature is None else parameters_of(current)
    except (ImportError, AttributeError) as error:
        return f"{override.target} does not exist: {error}"
    except (TypeError, ValueError) as error:
        return f"{override.target} is not a function that can be overridden: {error}"
    if found == override.signature:
        return None
    return f"{override.target} has the parameters {found}, expected {override.signature}"


def _bind_one(override: Override) -> bool:
    owner, name = _resolve(override.target)
    current = _current(owner, name, override)
    binding = _bindings.get(override.target)
    if binding is not None and binding.owner is owner and binding.holds():
        return False
    before = vars(owner).get(name, _NOTHING)
    binding = _Binding(owner, name, before, override.replace(current))
    setattr(owner, name, binding.bound)
    _bindings[override.target] = binding
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
