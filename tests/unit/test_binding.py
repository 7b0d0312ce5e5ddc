# SPDX-License-Identifier: Apache-2.0
"""Overrides are bound only where everything looks as expected."""

import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from vllm_eplb_plugin.overrides.binding import (
    OverrideError,
    UnbindError,
    bind,
    bind_what_is_there,
    find_mismatches,
    unbind,
)
from vllm_eplb_plugin.overrides.override import Override


@pytest.fixture
def target() -> Iterator[ModuleType]:
    """A module as vLLM's are: a function, and a class that assigns an attribute."""
    module = ModuleType("override_target")
    source = """
class State:
    def __init__(self, size):
        self.policy = size

    def step(self, is_dummy: bool = False, *, log: "int | None" = None) -> int:
        return 1

def commit(state, layer):
    return "original"
"""
    exec(source, module.__dict__)
    sys.modules[module.__name__] = module
    yield module
    unbind([STEP])
    del sys.modules[module.__name__]


def override(name: str, signature: str | None, replace: Callable[[Any], Any]) -> Override:
    return Override(
        f"override_target:{name}", signature, replace, "a failure", "some day", "replace"
    )


def doubled(original: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(original)
    def step(self: object, is_dummy: bool = False, *, log: int | None = None) -> int:
        return 2 * original(self, is_dummy, log=log)

    return step


STEP = override("State.step", "(self, is_dummy=False, *, log=None)", doubled)


def test_a_method_is_replaced_for_instances_that_exist_already(target: ModuleType) -> None:
    state = target.State(4)
    assert bind([STEP]) == ["override_target:State.step"]
    assert state.step() == 2


def test_binding_twice_changes_nothing(target: ModuleType) -> None:
    bind([STEP])
    assert bind([STEP]) == []
    assert target.State(4).step() == 2


def test_an_attribute_becomes_a_property(target: ModuleType) -> None:
    held = {}
    policy = property(
        lambda self: held["policy"] + 1, lambda self, value: held.update(policy=value)
    )
    attribute = override("State.policy", None, lambda _: policy)
    bind([attribute])
    assert target.State(4).policy == 5
    assert bind([attribute]) == []


def test_one_wrong_signature_keeps_everything_unbound(target: ModuleType) -> None:
    original = target.State.step
    wrong = override("commit", "(state, layer, model)", lambda f: f)
    with pytest.raises(
        OverrideError,
        match=r"override_target:commit has the parameters "
        r"\(state, layer\), expected \(state, layer, model\)",
    ):
        bind([STEP, wrong])
    assert target.State.step is original


@pytest.mark.parametrize(
    ("name", "signature"),
    [("State.gone", "(self)"), ("gone", "()"), ("State.gone", None), ("Gone.step", "(self)")],
)
def test_a_target_that_is_not_there_is_a_mismatch(
    target: ModuleType, name: str, signature: str | None
) -> None:
    (problem,) = find_mismatches([override(name, signature, lambda f: f)])
    assert f"override_target:{name} does not exist" in problem


def test_a_target_that_is_no_function_is_a_mismatch(target: ModuleType) -> None:
    target.commit = 5
    (problem,) = find_mismatches([override("commit", "()", lambda f: f)])
    assert "override_target:commit is not a function" in problem


def test_what_was_bound_is_taken_back(target: ModuleType) -> None:
    before = vars(target.State).copy()
    overrides = [STEP, override("State.policy", None, lambda _: property(lambda self: 3))]
    bind(overrides)
    assert unbind(overrides) == ["override_target:State.step", "override_target:State.policy"]
    assert vars(target.State) == before
    assert unbind(overrides) == []
    assert bind(overrides) != []


def test_what_somebody_put_on_top_is_left_alone_and_named(
    target: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_top(self: object) -> int:
        return 7

    bind([STEP])
    with monkeypatch.context() as patch:
        patch.setattr(target.State, "step", on_top)
        with pytest.raises(UnbindError, match=r"State\.step was replaced by .*on_top after"):
            unbind([STEP])
        (problem,) = bind_what_is_there([STEP])
        assert "State.step was replaced by" in problem
        assert target.State.step is on_top


def test_what_only_looks_on_is_bound_whatever_the_signature(target: ModuleType) -> None:
    unexpected = override("commit", "(gone)", lambda original: lambda *args: "looked on")
    problems = bind_what_is_there([unexpected, override("gone", "()", lambda f: f)])
    assert target.commit(1, 2) == "looked on"
    assert len(problems) == 1
    assert "override_target:gone does not exist" in problems[0]


def test_a_refusal_says_how_to_go_on(target: ModuleType) -> None:
    with pytest.raises(OverrideError) as refusal:
        bind([override("commit", "()", lambda f: f)])
    assert "EPLB_PLUGIN='{\"enabled\": false}'" in str(refusal.value)
