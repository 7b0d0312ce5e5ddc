# SPDX-License-Identifier: Apache-2.0
"""The incremental policy: valid, never worse, within limits, and done when it is done."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.builders.problems import limited, problems, require_valid, require_within_limits
from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of
from vllm_eplb_plugin.planning.grouping import whole_groups
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Limits, Problem

ROOT = Path(__file__).parents[2]


@settings(max_examples=300)
@given(problem=problems() | problems(groups=True) | problems(groups=True, scattered=True))
def test_a_plan_is_valid_and_no_layer_is_less_balanced(problem: Problem) -> None:
    placement = Incremental()(problem)
    require_valid(problem, placement)
    before = balancedness_of_layers(problem, problem.old)
    assert (balancedness_of_layers(problem, placement) >= before - 1e-12).all()


@settings(max_examples=200)
@given(problem=problems() | problems(groups=True) | problems(groups=True, scattered=True))
def test_planned_again_from_its_own_result_nothing_changes(problem: Problem) -> None:
    once = Incremental()(problem)
    again = Problem(
        problem.load, once, problem.num_ranks, problem.num_nodes, problem.num_groups,
        problem.expert_bytes, limits=problem.limits,
    )  # fmt: skip
    assert (Incremental()(again) == once).all()


@settings(max_examples=300)
@given(problem=limited())
def test_limits_hold_exactly(problem: Problem) -> None:
    placement = Incremental()(problem)
    require_valid(problem, placement)
    before = balancedness_of_layers(problem, problem.old)
    assert (balancedness_of_layers(problem, placement) >= before - 1e-12).all()
    require_within_limits(problem, placement)


@settings(max_examples=100)
@given(problem=problems(groups=True, scattered=True))
def test_groups_are_whole_afterwards_unless_that_is_less_balanced(problem: Problem) -> None:
    placement = Incremental()(problem)
    whole = whole_groups(replace(problem, old=placement))
    assert (whole | (placement == problem.old).all(axis=1)).all()


@pytest.mark.parametrize("budget", [None, 0, 3, 40])
def test_from_vllms_first_placement_groups_come_together(budget: int | None) -> None:
    """No group of it is whole where there are redundant experts."""
    random = np.random.default_rng(0)
    load = np.exp(0.6 * random.normal(size=(3, 64)))
    first = np.tile(np.arange(80) % 64, (3, 1))
    problem = Problem(load, first, 8, 2, 4, limits=Limits(max_bytes=budget))
    assert not whole_groups(problem).any()
    placement = Incremental()(problem)
    require_valid(problem, placement)
    received = costs_of(problem, placement).received.sum()
    if budget is None:
        assert whole_groups(replace(problem, old=placement)).all()
        assert balancedness_of_layers(problem, placement).min() > 0.95
    else:
        assert received <= budget
        assert (received > 0) == (budget > 0)


def test_what_is_stuck_once_is_planned_as_if_it_were_in_force() -> None:
    """With groups to gather, moves cost other amounts the second time."""
    row = [3, 1, 0, 7, 1, 2, 0, 4, 6, 4, 4, 4, 1, 6, 5, 7, 5, 7, 7, 3, 2, 3, 6, 7, 7, 3, 4, 1, 5]
    problem = Problem(np.full((1, 8), 100.0), np.array([[*row, 7, 7, 2]]), 8, 2, 2)
    once = Incremental()(problem)
    assert (Incremental()(replace(problem, old=once)) == once).all()


@pytest.mark.parametrize("redundant", [0, 1, 3])
def test_nothing_is_written_outside_of_what_is_there(redundant: int) -> None:
    """Python looks at every index; compiled code would not."""
    code = (
        "import numpy as np\n"
        "from tests.builders.drawn_problems import Draws\n"
        "from vllm_eplb_plugin.planning.policies.incremental import Incremental\n"
        "from vllm_eplb_plugin.planning.policies.replicas_only import ReplicasOnly\n"
        "from vllm_eplb_plugin.planning.problem import Problem\n"
        "draws = Draws(1)\n"
        "for nodes, groups in ((1, 1), (2, 2)):\n"
        f"    slots = 12 + {redundant} * 4\n"
        "    load = np.array([[1.0 + draws.below(50) for _ in range(12)] for _ in range(4)])\n"
        "    old = np.tile(np.arange(slots) % 12, (4, 1))\n"
        "    for policy in (Incremental(), ReplicasOnly()):\n"
        "        policy(Problem(load, old, 4, nodes, groups))\n"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT)


def test_the_best_moves_of_all_layers_come_first() -> None:
    """Of two layers, the one that gains more gets what one move costs."""
    load = np.array([[50.0, 50, 40, 40], [90.0, 50, 10, 10]])
    old = np.array([[0, 1, 2, 3]] * 2)
    problem = Problem(load, old, 2, limits=Limits(max_bytes=2))
    placement = Incremental()(problem)
    assert (placement[0] == old[0]).all()
    assert (placement[1] != old[1]).any()


def test_a_stationary_load_moves_nothing() -> None:
    random = np.random.default_rng(0)
    popularity = np.exp(0.6 * random.normal(size=(12, 64)))
    popularity /= popularity.sum(axis=1, keepdims=True)

    def window() -> np.ndarray:
        return np.stack([random.multinomial(1_000_000, row) for row in popularity]).astype(float)

    first = np.tile(np.arange(80) % 64, (12, 1))
    placement = Incremental()(Problem(window(), first, 8))
    for _ in range(5):
        assert (Incremental(0.98)(Problem(window(), placement, 8)) == placement).all()
