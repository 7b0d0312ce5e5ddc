# SPDX-License-Identifier: Apache-2.0
"""Steps after a policy, and policies by name."""

from typing import Any

import numpy as np
import pytest

from vllm_eplb_plugin.placement.maps import InvalidPlacementError
from vllm_eplb_plugin.planning.costs import costs_of
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Integers, Limits, Problem
from vllm_eplb_plugin.planning.registry import UnknownPolicyError, find_policy

LOAD = np.array([[60.0, 40, 30, 30], [51.0, 50, 49, 50], [90.0, 80, 10, 20]])
OLD = np.array([[0, 1, 2, 3]] * 3)
SPREAD = np.array([[0, 2, 1, 3], [0, 2, 1, 3], [0, 2, 1, 3]])


def spread(_: Problem) -> Integers:
    """A policy that knows of no limits."""
    return SPREAD.copy()


class Answer:
    """A policy that answers anything."""

    def __init__(self, answer: Any) -> None:
        self.__name__, self._answer = "function", answer

    def __call__(self, _: Problem) -> Any:
        """Answer it."""
        return self._answer


class Same:
    """A policy that changes nothing."""

    def __call__(self, problem: Problem) -> Integers:
        """Plan what is there."""
        return problem.old

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same)


def test_layers_that_gain_too_little_stay() -> None:
    problem = Problem(LOAD, OLD, 2, limits=Limits(min_gain=0.02))
    placement = Pipeline(spread)(problem).placement
    assert (placement != OLD).any(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("limits", "changed"),
    [
        (Limits(), [True, True, True]),
        (Limits(max_layers=1), [False, False, True]),
        (Limits(max_bytes=2), [False, False, True]),
        (Limits(max_bytes_per_rank=2), [True, False, True]),
        (Limits(max_bytes=1), [False, False, False]),
    ],
)
def test_the_layers_that_gain_most_are_taken_while_limits_hold(
    limits: Limits, changed: list[bool]
) -> None:
    problem = Problem(LOAD, OLD, 2, limits=limits)
    placement = Pipeline(spread)(problem).placement
    assert (placement != OLD).any(axis=1).tolist() == changed
    received = costs_of(problem, placement).received
    assert limits.max_bytes is None or received.sum() <= limits.max_bytes


def test_policies_and_steps_are_found_by_name() -> None:
    assert find_policy("incremental", {"target": 0.9}) == Incremental(0.9)
    assert find_policy("tests.unit.test_planning_steps:Same", {}) == Same()


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("incremantal", {}, "no policy 'incremantal', the nearest is 'incremental'"),
        ("incremental", {"traget": 0.9}, "has no 'traget', the nearest is 'target'"),
        ("incremental", {"target": 2}, "target is 2"),
        (
            "nowhere:Policy",
            {},
            "cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
    ],
)
def test_a_wrong_name_or_parameter_is_told(
    name: str, parameters: dict[str, float], said: str
) -> None:
    with pytest.raises(UnknownPolicyError, match=said):
        find_policy(name, parameters)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "the policy function answers NoneType, no array of integers"),
        (OLD.astype(float), "answers float64, no array of integers"),
        (OLD[:, :3], r"answers the shape \[3, 3\], not \[layers, slots\], \[3, 4\]"),
        (OLD + 1, "puts 4 in slot 3 of layer 0, where there are experts 0 to 3"),
        (np.where(OLD == 2, 10**6, OLD), "puts 1000000 in slot 2 of layer 0"),
        (np.where(OLD == 2, -(2**62), OLD), "in slot 2 of layer 0"),
        (OLD * 0, "leaves expert 1 of layer 0 without a slot"),
    ],
)
def test_an_answer_that_is_no_placement_is_told_before_anything_reads_it(
    answer: Any, said: str
) -> None:
    function = Answer(answer)
    with pytest.raises(InvalidPlacementError, match=said):
        Pipeline(function)(Problem(LOAD, OLD, 2))
    said = said.replace("the policy function", "the step <lambda>")
    with pytest.raises(InvalidPlacementError, match=said):
        Pipeline(Same(), (lambda *_: answer,))(Problem(LOAD, OLD, 2))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_any_array_of_integers_is_an_answer(dtype: Any) -> None:
    flipped = np.asfortranarray(SPREAD[:, ::-1].astype(dtype))
    placement = Pipeline(Answer(flipped))(Problem(LOAD, OLD, 2)).placement
    assert (placement == SPREAD[:, ::-1]).all()
    assert placement.dtype == np.int64


def test_a_policy_that_writes_into_what_it_is_given_changes_its_own_copy() -> None:
    def spoil(problem: Problem) -> Integers:
        problem.load[:] = 0
        problem.old[:, 0] = 1
        return SPREAD

    load, old = LOAD.copy(), OLD.copy()
    Pipeline(spoil)(Problem(load, old, 2))
    assert (load == LOAD).all() and (old == OLD).all()
