# SPDX-License-Identifier: Apache-2.0
"""Which policy the settings of the plugin ask for. Pure functions."""

from collections.abc import Mapping

from pydantic import JsonValue

_DEFAULT = "default"
_AS_VLLM: tuple[JsonValue, ...] = (None, {}, {"policy": _DEFAULT}, {"policy": {_DEFAULT: {}}})
_Settings = Mapping[str, JsonValue] | None


def planned_by(plugin: _Settings) -> str | None:
    """The policy of an arm that plans otherwise than vLLM; none: it plans as vLLM does."""
    planning = (plugin or {}).get("planning")
    if planning in _AS_VLLM or not isinstance(planning, Mapping):
        return None
    policy = planning.get("policy", _DEFAULT)
    return next(iter(policy), _DEFAULT) if isinstance(policy, Mapping) else str(policy)


def differ_in_planning_only(one: _Settings, other: _Settings) -> bool:
    """Whether all settings but those of planning are alike."""
    return _without_planning(one) == _without_planning(other)


def _without_planning(plugin: _Settings) -> dict[str, JsonValue]:
    return {name: value for name, value in (plugin or {}).items() if name != "planning"}
