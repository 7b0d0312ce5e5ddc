# SPDX-License-Identifier: Apache-2.0
"""The step that leaves experts where they are: whatever was planned, less is received."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from tests.builders.problems import problems, require_valid
from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of
from vllm_eplb_plugin.planning.keeping.assignment import best_assignment
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.policies.default import Default
from vllm_eplb_plugin.planning.problem import Integers, Problem
from vllm_eplb_plugin.planning.steps.keep_in_place import KeepInPlace

SLACKS = (0.0, 0.01, 0.2)


@st.composite
def planned(draw: st.DrawFn) -> tuple[Problem, Integers]:
    """A problem and what some policy planned: vLLM's, one at random, or nothing new."""
    problem = draw(problems() | problems(groups=True))
    by = draw(st.sampled_from(["default", "random", "old"]))
    if by == "default":
        return problem, Default()(problem)
    if by == "old":
        return problem, problem.old.copy()
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return problem, random.permuted(problem.old, axis=1)


def groups_on_one_node(problem: Problem, placement: Integers) -> Integers:
    """``[layers, groups]``: whether no two nodes hold experts of a group."""
    size = problem.num_experts // problem.num_groups
    by_node = (placement // size).reshape(problem.num_layers, problem.num_nodes, -1, 1)
    on_node = (by_node == np.arange(problem.num_groups)).any(axis=2)
    one: Integers = on_node.sum(axis=1) == 1
    return one


@settings(max_examples=400)
@given(case=planned(), slack=st.sampled_from(SLACKS))
def test_less_is_received_and_balance_is_kept_within_the_slack(
    case: tuple[Problem, Integers], slack: float
) -> None:
    problem, placement = case
    kept = KeepInPlace(slack)(problem, placement)
    require_valid(problem, kept)
    before, after = (costs_of(problem, one).received.sum(axis=1) for one in (placement, kept))
    assert (after <= before).all()
    planned, reached = (balancedness_of_layers(problem, one) for one in (placement, kept))
    assert (reached >= (1 - slack) * planned - 1e-9).all()
    assert (reached >= np.minimum(planned, 1 - slack) - 1e-9).all()


@settings(max_examples=200)
@given(case=planned(), slack=st.sampled_from(SLACKS))
def test_a_second_time_nothing_changes(case: tuple[Problem, Integers], slack: float) -> None:
    problem, placement = case
    once = KeepInPlace(slack)(problem, placement)
    assert (KeepInPlace(slack)(problem, once) == once).all()


@settings(max_examples=200)
@given(case=planned())
def test_each_expert_has_as_many_replicas_as_planned(case: tuple[Problem, Integers]) -> None:
    problem, placement = case
    kept = KeepInPlace()(problem, placement)
    assert (np.sort(kept, axis=1) == np.sort(placement, axis=1)).all()


@settings(max_examples=200)
@given(problem=problems(groups=True), seed=st.integers(0, 2**32 - 1))
def test_groups_that_are_on_one_node_stay_on_one(problem: Problem, seed: int) -> None:
    load = np.random.default_rng(seed).permuted(problem.load, axis=1)
    for placement in (Default()(replace(problem, load=load)), Default()(problem)):
        assert groups_on_one_node(problem, placement).all()
        kept = KeepInPlace(0.2)(problem, placement)
        assert groups_on_one_node(problem, kept).all()


@settings(max_examples=100)
@given(case=planned())
def test_what_stays_on_its_rank_stays_in_its_slot(case: tuple[Problem, Integers]) -> None:
    problem, placement = case
    kept = KeepInPlace()(problem, placement)
    size = problem.num_slots // problem.num_ranks
    for old, new in zip(problem.old.reshape(-1, size), kept.reshape(-1, size), strict=True):
        for expert in set(old) & set(new):
            assert ((old == expert) & (new == expert)).sum() == min(
                (old == expert).sum(), (new == expert).sum()
            )


def test_ranks_whose_experts_were_all_planned_elsewhere_move_nothing() -> None:
    old = np.array([[0, 1, 2, 3, 4, 5, 6, 7]])
    turned = np.array([[3, 2, 5, 4, 7, 6, 1, 0]])
    problem = Problem(np.ones((1, 8)), old, 4)
    assert (KeepInPlace()(problem, turned) == old).all()


def test_nodes_change_places_as_a_whole_where_groups_stay_together() -> None:
    old = np.array([[0, 1, 2, 3, 4, 5, 6, 7]])
    turned = np.array([[4, 5, 6, 7, 2, 3, 0, 1]])
    problem = Problem(np.ones((1, 8)), old, 4, num_nodes=2, num_groups=2)
    assert (KeepInPlace()(problem, turned) == old).all()


@pytest.mark.parametrize(("slack", "stays"), [(0.0, False), (0.01, False), (0.05, True)])
def test_nearly_equal_experts_go_back_within_the_slack(slack: float, stays: bool) -> None:
    """Experts 1 and 2 were exchanged for a gain of four in a hundred."""
    problem = Problem(np.array([[52.0, 52, 48, 48]]), np.array([[0, 1, 2, 3]]), 2)
    kept = KeepInPlace(slack)(problem, np.array([[0, 2, 1, 3]]))
    assert (kept == problem.old).all() == stays


def test_under_drift_it_saves_most_of_what_the_default_policy_moves() -> None:
    random = np.random.default_rng(0)
    popularity = np.exp(0.6 * random.normal(size=(8, 128)))
    old = Default()(Problem(popularity, np.tile(np.arange(144) % 128, (8, 1)), 8))
    drifted = popularity * np.exp(0.05 * random.normal(size=(8, 128)))
    problem = Problem(drifted, old, 8)
    kept = Pipeline(Default(), (KeepInPlace(),))(problem).placement
    moved, default = (costs_of(problem, one).received.sum() for one in (kept, Default()(problem)))
    assert moved * 5 < default


@settings(max_examples=200)
@given(n=st.integers(1, 9), most=st.sampled_from([1, 3, 1000]), seed=st.integers(0, 2**32 - 1))
def test_an_assignment_is_worth_most_and_changes_only_for_more(
    n: int, most: int, seed: int
) -> None:
    value = np.random.default_rng(seed).integers(0, most, (n, n), endpoint=True)
    column_of = best_assignment(value)
    assert sorted(column_of) == list(range(n))
    reached = value[np.arange(n), column_of].sum()
    assert reached == value[linear_sum_assignment(value, maximize=True)].sum()
    assert reached > np.trace(value) or (column_of == np.arange(n)).all()


@pytest.mark.parametrize("slack", [-0.01, 1, float("nan")])
def test_a_slack_that_is_no_part_is_refused(slack: float) -> None:
    with pytest.raises(ValueError, match="slack is"):
        KeepInPlace(slack)
