# SPDX-License-Identifier: Apache-2.0
"""Policies and steps by name: ours, vLLM's, and other packages'."""

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.problem import Policy, Step

ENTRY_POINTS = "vllm_eplb_plugin.policies"
"""The group of entry points by which another package names its policies."""

_OURS = {
    "default": "vllm_eplb_plugin.planning.policies.default:Default",
    "incremental": "vllm_eplb_plugin.planning.policies.incremental:Incremental",
    "replicas_only": "vllm_eplb_plugin.planning.policies.replicas_only:ReplicasOnly",
}
_STEPS = {"keep_in_place": "vllm_eplb_plugin.planning.steps.keep_in_place:KeepInPlace"}


class UnknownPolicyError(ValueError):
    """No policy or step has that name; the message has the nearest."""


class Named(Protocol):
    """A policy or step by name, with its own parameters."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...


class Chosen(Protocol):
    """What is chosen of policies and steps, as the setting ``planning`` has it."""

    @property
    def policy(self) -> Named: ...
    @property
    def steps(self) -> Sequence[Named]: ...


def make_pipeline(chosen: Chosen) -> Pipeline:
    """Make the policy and the steps that are chosen.

    Raises:
        UnknownPolicyError: See `find_policy` and `find_step`.
    """
    steps = tuple(find_step(step.name, step.parameters) for step in chosen.steps)
    return Pipeline(find_policy(chosen.policy.name, chosen.policy.parameters), steps)


def find_policy(name: str, parameters: Mapping[str, Any]) -> Policy:
    """Make a policy.

    Args:
        name: One of ours, an entry point's of the group `ENTRY_POINTS`, or ``module:object`` for
            one on the path.
        parameters: With which it is made, of those of its own.

    Raises:
        UnknownPolicyError: There is none, it cannot be imported, or it does not take them.
    """
    policy: Policy = _make(name, _OURS | _of_other_packages(), "policy", parameters)
    return policy


def find_step(name: str, parameters: Mapping[str, Any]) -> Step:
    """Make a step of ours, or ``module:object``.

    Raises:
        UnknownPolicyError: There is none, it cannot be imported, or it does not take them.
    """
    step: Step = _make(name, _STEPS, "step", parameters)
    return step


def _make(name: str, known: Mapping[str, str], what: str, parameters: Mapping[str, Any]) -> Any:
    make: Callable[..., Any] = _find(name, known, what)
    try:
        return make(**parameters)
    except (TypeError, ValueError) as error:
        raise UnknownPolicyError(f"the {what} {name!r} cannot be made: {error}") from error


def _of_other_packages() -> dict[str, str]:
    return {
        point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)
    }


def _find(name: str, known: Mapping[str, str], what: str) -> Any:
    place = known.get(name, name)
    module, separator, attribute = place.partition(":")
    if not separator:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UnknownPolicyError(
            f"there is no {what} {name!r}, the nearest is {nearest[0]!r}; one of your own is named "
            "as module:object"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownPolicyError(f"the {what} {name!r} cannot be imported: {error}") from error
