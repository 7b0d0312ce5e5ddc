# SPDX-License-Identifier: Apache-2.0
"""What is bound in this process, each with what was there before."""

from dataclasses import dataclass
from typing import Any

from vllm_eplb_plugin.overrides.override import Override

ABSENT = object()
"""Stands for an attribute that its owner does not hold itself: it is inherited, or not there."""


def held(owner: Any, name: str) -> Any:
    """What a module or class itself holds, as it holds it: no lookup, no descriptor."""
    return vars(owner).get(name, ABSENT)


@dataclass(frozen=True)
class Bound:
    """An override in its place."""

    override: Override
    owner: Any
    name: str
    before: Any
    """What ``owner`` held, or `ABSENT`."""
    replaced: Any
    """What a lookup found: ``before``, or what was inherited."""
    now: Any
    """What it holds since."""

    @property
    def is_in_force(self) -> bool:
        """Whether the owner still holds what was bound."""
        return held(self.owner, self.name) is self.now

    @property
    def is_gone(self) -> bool:
        """Whether somebody else has put back what was there before."""
        return not self.is_in_force and held(self.owner, self.name) is self.before

    def describe_replacement(self) -> str:
        """What somebody else has done to the target since."""
        found = held(self.owner, self.name)
        by = "is gone" if found is ABSENT else f"was replaced by {_origin(found)}"
        return f"{self.override.target} {by} after the plugin had overridden it"


class BoundOverrides:
    """At most one override for each attribute of each module or class, however it is named."""

    def __init__(self) -> None:
        # By identity, because an owner need not be hashable; `Bound` keeps it alive.
        self._by_place: dict[tuple[int, str], Bound] = {}

    def at(self, owner: Any, name: str) -> Bound | None:
        """What is bound there; None also if somebody else has put back what was there before."""
        bound = self._by_place.get((id(owner), name))
        return None if bound is None or bound.is_gone else bound

    def of(self, override: Override) -> list[Bound]:
        """Where an override is bound: in more than one place if its module was made anew."""
        every = self._by_place.values()
        return [bound for bound in every if bound.override == override and not bound.is_gone]

    def put(self, override: Override, owner: Any, name: str, current: Any) -> Bound:
        """Bind an override; ``current`` is what it is given to replace."""
        before = held(owner, name)
        setattr(owner, name, override.replace(current))
        bound = Bound(override, owner, name, before, current, held(owner, name))
        self._by_place[id(owner), name] = bound
        return bound

    def take_back(self, bound: Bound) -> None:
        """Put back what was there before, and forget it."""
        if bound.before is ABSENT:
            delattr(bound.owner, bound.name)
        else:
            setattr(bound.owner, bound.name, bound.before)
        del self._by_place[id(bound.owner), bound.name]


def _origin(found: Any) -> str:
    """Where a function or class comes from; of anything else, its type."""
    function = getattr(found, "__func__", found)
    name = getattr(function, "__qualname__", None)
    if name is None:
        return f"a {type(found).__qualname__} of {type(found).__module__}"
    return f"{function.__module__}:{name}"
