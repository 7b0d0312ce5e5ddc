# SPDX-License-Identifier: Apache-2.0
"""Bind overrides into vLLM: check every target first, bind once, refuse loudly."""

import importlib
import inspect
import sys
from collections.abc import Iterable
from typing import Any

from vllm_eplb_plugin.overrides.override import Override, parameters_of

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
