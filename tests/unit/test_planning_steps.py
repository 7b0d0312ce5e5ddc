# SPDX-License-Identifier: Apache-2.0
"""Steps after a policy, and policies by name."""

import numpy as np
import pytest

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
        ("incremental", {"traget": 0.9}, "unexpected keyword argument 'traget'"),
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
