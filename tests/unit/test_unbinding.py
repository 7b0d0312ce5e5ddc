# SPDX-License-Identifier: Apache-2.0
"""What was bound can be taken back, and leaves everything as it was."""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_eplb_plugin.overrides.binding import OverrideError, UnbindError, bind, unbind
from vllm_eplb_plugin.overrides.bound import ABSENT, held
from vllm_eplb_plugin.overrides.override import Override

SOURCE = """
class Base:
    def __init__(self):
        self.policy = "policy"

    def step(self, log=None):
        return ["step"]

    @classmethod
    def make(cls, size):
        return ["make"]

    @property
    def width(self):
        return 4

class Child(Base):
    pass

Alias = Base
number = 4

def commit(state):
    return ["commit"]
"""
TARGETS = {
    "Base.step": "(self, log=None)",
    "Child.step": "(self, log=None)",
    "Alias.step": "(self, log=None)",
    "Base.make": "(size)",
    "Child.make": "(size)",
    "Base.width": None,
    "Base.policy": None,
    "Child.policy": None,
    "number": None,
    "commit": "(state)",
}
names = itertools.count()


@contextmanager
def made_up_module() -> Iterator[ModuleType]:
    module = ModuleType(f"made_up_{next(names)}")
    exec(SOURCE, module.__dict__)
    sys.modules[module.__name__] = module
    try:
        yield module
    finally:
        del sys.modules[module.__name__]


@pytest.fixture
def module() -> Iterator[ModuleType]:
    with made_up_module() as module:
        yield module


def place_of(module: ModuleType, name: str) -> tuple[Any, str]:
    *parents, last = name.split(".")
    return (getattr(module, parents[0]) if parents else module), last


def another(owner: Any, name: str) -> Any:
    """What can stand in a place: of the same sort as what is there, and it is a new object."""
    if name in ("width", "policy"):
        return property(lambda self: 8, lambda self, value: None)
    if name == "number":
        return object()
    current: Callable[..., Any] = getattr(owner, name)
    original = getattr(current, "__func__", current)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> list[str]:
        return ["another", *original(*args, **kwargs)]

    return classmethod(wrapper) if name == "make" else wrapper


def override(module: ModuleType, name: str) -> Override:
    owner, last = place_of(module, name)

    def replace(current: Any) -> Any:
        return another(owner, last)

    target = f"{module.__name__}:{name}"
    return Override(target, TARGETS[name], replace, "a failure", "some day", "replace")


def contents(module: ModuleType) -> dict[tuple[str, str], int]:
    """Identities of all that the module and its classes hold."""
    owners = {"module": module, "Base": module.Base, "Child": module.Child}
    return {
        (owner, name): id(value)
        for owner, one in owners.items()
        for name, value in vars(one).items()
        # Of these, Python makes a new one at each look.
        if name not in ("__dict__", "__weakref__")
    }


@given(st.permutations(list(TARGETS)), st.permutations(list(TARGETS)), st.integers(1, 10))
def test_in_whatever_order_all_is_as_it_was(first: list[str], last: list[str], number: int) -> None:
    with made_up_module() as module:
        before = contents(module)
        overrides = {name: override(module, name) for name in first[:number]}
        done = bind(overrides.values())
        assert contents(module) != before
        back = [one for name in last if name in overrides for one in unbind([overrides[name]])]
        assert sorted(back) == sorted(done)
        assert contents(module) == before


ACTIONS = ("bind", "bind another", "unbind", "unbind another", "replace", "put back")


def of_few_targets(chosen: list[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    steps = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(chosen))
    return st.lists(steps, max_size=30)


few = st.lists(st.sampled_from(list(TARGETS)), min_size=1, max_size=3, unique=True)


@given(few.flatmap(of_few_targets))
def test_binding_is_as_in_a_plain_account_of_it(actions: list[tuple[str, str]]) -> None:
    """The account: of each place what it holds, and who bound what over what there."""
    with made_up_module() as module:
        overrides = {
            (which, name): override(module, name) for which in ("", "another") for name in TARGETS
        }
        holds = {place_of(module, name): held(*place_of(module, name)) for name in TARGETS}
        bound: dict[tuple[Any, str], tuple[Override, Any, Any]] = {}
        for action, name in actions:
            place = place_of(module, name)
            verb, _, which = action.partition(" ")
            mine = overrides["another" if which == "another" else "", name]
            over = bound.get(place)
            if over is not None and holds[place] is over[1]:
                over = None
            foreign = over is not None and holds[place] is not over[2]
            if verb == "replace":
                setattr(*place, another(*place))
                holds[place] = held(*place)
            elif verb == "put":
                if over is not None:
                    setattr(*place, over[2])
                    holds[place] = over[2]
            elif verb == "bind" and foreign:
                with pytest.raises(OverrideError, match=f":{over[0].target.partition(':')[2]} was"):
                    bind([mine])
            elif verb == "bind":
                assert bind([mine]) == ([] if over else [mine.target])
                if over is None:
                    bound[place] = (mine, holds[place], held(*place))
                    assert held(*place) is not holds[place]
                    holds[place] = held(*place)
            elif over is not None and over[0] == mine and foreign:
                with pytest.raises(UnbindError, match="after the plugin had overridden it"):
                    unbind([mine])
            elif over is not None and over[0] == mine:
                assert unbind([mine]) == [mine.target]
                holds[place] = over[1]
                del bound[place]
            else:
                assert unbind([mine]) == []
            for where, value in holds.items():
                assert held(*where) is value, (action, name, where)


def test_an_instance_has_its_attribute_again(module: ModuleType) -> None:
    policy = override(module, "Base.policy")
    bind([policy])
    assert module.Base().policy == 8
    assert unbind([policy]) == [policy.target]
    assert module.Base().policy == "policy"
    assert held(module.Base, "policy") is ABSENT


def test_one_that_somebody_has_replaced_is_named_and_none_is_taken_back(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, commit = override(module, "Base.step"), override(module, "commit")
    bind([step, commit])
    ours = module.commit
    with monkeypatch.context() as patch:
        patch.setattr(module.Base, "step", functools.partialmethod(print))
        with pytest.raises(UnbindError, match=rf"{step.target} was replaced by a partialmethod"):
            unbind([commit, step])
        with pytest.raises(OverrideError, match=rf"{step.target} was replaced by a partialmethod"):
            bind([step])
        assert module.commit is ours
    assert unbind([commit, step]) == [commit.target, step.target]


def test_one_that_somebody_has_deleted_is_named(module: ModuleType) -> None:
    step = override(module, "Base.step")
    bind([step])
    del module.Base.step
    with pytest.raises(UnbindError, match=rf"{step.target} is gone after the plugin had"):
        unbind([step])


def test_one_that_somebody_else_has_put_back_can_be_bound_again(module: ModuleType) -> None:
    step = override(module, "Child.step")
    original = module.Base.step
    bind([step])
    module.Child.step = original
    with pytest.raises(UnbindError, match=rf"{step.target} was replaced by .*:Base.step"):
        unbind([step])
    del module.Child.step
    assert unbind([step]) == []
    assert bind([step]) == [step.target]


def test_a_method_of_one_class_is_bound_once_whatever_the_class_is_called(
    module: ModuleType,
) -> None:
    assert bind([override(module, "Base.step")])
    assert bind([override(module, "Alias.step")]) == []
    assert module.Base().step() == ["another", "step"]


def test_one_that_cannot_be_made_leaves_nothing_bound(module: ModuleType) -> None:
    def fail(current: Any) -> Any:
        raise LookupError("no such kernel")

    target = f"{module.__name__}:commit"
    commit = Override(target, "(state)", fail, "a failure", "some day", "replace")
    before = contents(module)
    with pytest.raises(LookupError, match="no such kernel"):
        bind([override(module, "Base.step"), commit])
    assert contents(module) == before


def test_what_changes_nothing_is_bound_all_the_same(module: ModuleType) -> None:
    target = f"{module.__name__}:commit"
    same = Override(target, "(state)", lambda current: current, "a failure", "some day", "hook")
    assert [bind([same]), bind([same]), unbind([same])] == [[target], [], [target]]


def test_binding_again_asks_nothing_of_what_was_bound(module: ModuleType) -> None:
    def replace(current: Any) -> Any:
        return lambda *_args, **_kwargs: ["of other parameters"]

    commit = override(module, "commit")
    loose = dataclasses.replace(commit, replace=replace)
    assert bind([loose]) == [loose.target]
    assert bind([loose, commit]) == []
    assert module.commit(None) == ["of other parameters"]
