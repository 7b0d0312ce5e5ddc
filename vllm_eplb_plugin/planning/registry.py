# SPDX-License-Identifier: Apache-2.0
"""Policies and steps by name: ours, vLLM's, and other packages'."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
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
_STEPS = {
    "keep_in_place": "vllm_eplb_plugin.planning.steps.keep_in_place:KeepInPlace",
    "two_ranks": "vllm_eplb_plugin.planning.steps.two_ranks:TwoRanks",
}


class UnknownPolicyError(ValueError):
    """No policy or step can be had by that name; the message says why."""


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
            one on the path. Ours win, so that what a name means does not depend on what else is
            installed.
        parameters: With which it is made, of those of its own.

    Raises:
        UnknownPolicyError: There is none, two packages have one, it cannot be imported, or it does
            not take the parameters.
    """
    others = {} if name in _OURS else _of_other_packages()
    policy: Policy = _make(name, others | _named(_OURS), "policy", parameters)
    return policy


def find_step(name: str, parameters: Mapping[str, Any]) -> Step:
    """Make a step of ours, or ``module:object``.

    Raises:
        UnknownPolicyError: There is none, it cannot be imported, or it does not take them.
    """
    step: Step = _make(name, _named(_STEPS), "step", parameters)
    return step


def _make(
    name: str, known: Mapping[str, list[EntryPoint]], what: str, parameters: Mapping[str, Any]
) -> Any:
    make = _find(name, known, what)
    _require_parameters(make, name, what, parameters)
    try:
        made = make(**parameters)
    except (Exception, SystemExit) as error:  # foreign code, which may fail in any way
        raise UnknownPolicyError(
            f"the {what} {name!r} cannot be made: {_describe(error)}"
        ) from error
    if not callable(made):
        raise UnknownPolicyError(f"the {what} {name!r} makes {made!r}, which cannot be called")
    return made


def _require_parameters(
    make: Callable[..., Any], name: str, what: str, parameters: Mapping[str, Any]
) -> None:
    try:
        taken = inspect.signature(make).parameters
    except (TypeError, ValueError):  # it says nothing of its parameters
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    for parameter in parameters:
        if parameter not in taken:
            nearest = difflib.get_close_matches(parameter, taken, n=1, cutoff=0.0)
            advice = f"the nearest is {nearest[0]!r}" if nearest else "it takes none"
            raise UnknownPolicyError(f"the {what} {name!r} has no {parameter!r}, {advice}")


def _named(places: Mapping[str, str]) -> dict[str, list[EntryPoint]]:
    return {name: [EntryPoint(name, place, ENTRY_POINTS)] for name, place in places.items()}


def _of_other_packages() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        same = found.setdefault(point.name, [])
        if point.value not in [other.value for other in same]:
            same.append(point)
    return found


def _find(name: str, known: Mapping[str, list[EntryPoint]], what: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if name not in known and not (module.replace(".", "_").isidentifier() and attribute):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UnknownPolicyError(
            f"there is no {what} {name!r}, the nearest is {nearest[0]!r}; one of your own is named "
            "as module:object, of a module on the path (PYTHONPATH)"
        )
    points = known.get(name, [EntryPoint(name, name, ENTRY_POINTS)])
    if len(points) > 1:
        places = " and ".join(sorted(repr(point.value) for point in points))
        raise UnknownPolicyError(f"{name!r} may be {places}: name the {what} by its module:object")
    try:
        found: Callable[..., Any] = points[0].load()
    except (Exception, SystemExit) as error:  # foreign code, which may fail in any way
        raise UnknownPolicyError(
            f"the {what} {name!r} cannot be imported: {_describe(error)}"
        ) from error
    return found


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
