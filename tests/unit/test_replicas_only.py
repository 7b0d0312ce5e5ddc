# SPDX-License-Identifier: Apache-2.0
"""The policy that changes redundant slots only: homes stay, and what moves is bounded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.problems import limited, problems, require_valid, require_within_limits
from vllm_eplb_plugin.planning.costs import balancedness_of_layers
from vllm_eplb_plugin.planning.grouping import whole_groups
from vllm_eplb_plugin.planning.policies.replicas_only import ReplicasOnly, homes_of
from vllm_eplb_plugin.planning.problem import Integers, Problem

EVERY_KIND = problems() | problems(groups=True)


def first_placement(layers: int, experts: int, redundant: int) -> Integers:
    """As vLLM's ``build_initial_global_physical_to_logical_map`` makes it."""
    slots = [*range(experts), *(i % experts for i in range(redundant))]
    return np.tile(np.array(slots), (layers, 1))


def held(problem: Problem, placement: Integers) -> Integers:
    """``[layers, ranks, logical]``: slots of a rank that hold an expert."""
    by_rank = placement.reshape(problem.num_layers, problem.num_ranks, -1, 1)
    return (by_rank == np.arange(problem.num_experts)).sum(axis=2)


@settings(max_examples=300)
@given(problem=EVERY_KIND)
def test_a_plan_is_valid_and_no_layer_is_less_balanced(problem: Problem) -> None:
    placement = ReplicasOnly()(problem)
    require_valid(problem, placement)
    before = balancedness_of_layers(problem, problem.old)
    assert (balancedness_of_layers(problem, placement) >= before - 1e-12).all()


@settings(max_examples=200)
@given(problem=EVERY_KIND, seed=st.integers(0, 2**32 - 1))
def test_homes_are_the_same_however_often_it_plans(problem: Problem, seed: int) -> None:
    homes, random = homes_of(problem), np.random.default_rng(seed)
    first = problem.old.copy()
    for _ in range(4):
        problem = replace(problem, old=ReplicasOnly()(problem))
        assert (homes_of(problem) == homes).all()
        problem = replace(problem, load=random.permuted(problem.load, axis=1))
    redundant = problem.num_slots - problem.num_experts
    assert ((problem.old != first).sum(axis=1) <= redundant).all()


@settings(max_examples=200)
@given(problem=EVERY_KIND)
def test_no_rank_gets_a_second_replica_of_an_expert(problem: Problem) -> None:
    before, after = held(problem, problem.old), held(problem, ReplicasOnly()(problem))
    assert (after <= np.maximum(before, 1)).all()


@settings(max_examples=200)
@given(problem=problems(groups=True))
def test_groups_that_are_whole_stay_on_their_nodes(problem: Problem) -> None:
    whole = whole_groups(problem)
    assert (whole_groups(replace(problem, old=ReplicasOnly()(problem))) | ~whole).all()


@settings(max_examples=200)
@given(problem=EVERY_KIND)
def test_planned_again_from_its_own_result_nothing_changes(problem: Problem) -> None:
    once = ReplicasOnly()(problem)
    assert (ReplicasOnly()(replace(problem, old=once)) == once).all()


@settings(max_examples=300)
@given(problem=limited())
def test_limits_hold_exactly(problem: Problem) -> None:
    placement = ReplicasOnly()(problem)
    require_valid(problem, placement)
    require_within_limits(problem, placement)
    before = balancedness_of_layers(problem, problem.old)
    assert (balancedness_of_layers(problem, placement) >= before - 1e-12).all()


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_from_vllms_first_placement_the_slots_of_the_logical_experts_stay(seed: int) -> None:
    load = np.exp(np.random.default_rng(seed).normal(size=(3, 24)))
    old = first_placement(3, 24, 8)
    placement = ReplicasOnly()(Problem(load, old, 4))
    assert (placement[:, :24] == old[:, :24]).all()
    assert (placement[:, 24:] != old[:, 24:]).any()


def test_the_hottest_experts_get_the_redundant_slots() -> None:
    load = np.array([[10.0, 10, 90, 10, 90, 10, 10, 10, 10, 10, 10, 10]])
    old = first_placement(1, 12, 4)
    problem = Problem(load, old, 4)
    placement = ReplicasOnly()(problem)
    assert {2, 4} <= set(placement[0, 12:].tolist())
    before, after = (balancedness_of_layers(problem, one)[0] for one in (old, placement))
    assert after > before + 0.1


def test_groups_that_homes_have_torn_do_not_bind_replicas() -> None:
    """vLLM's first placement has redundant slots on the last node only."""
    load = np.array([[90.0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10]])
    old = first_placement(1, 12, 4)
    placement = ReplicasOnly()(Problem(load, old, 4, num_nodes=2, num_groups=2))
    assert 0 in placement[0, 12:]


@pytest.mark.parametrize("target", [0, 1.1, float("nan")])
def test_a_target_that_cannot_be_reached_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target is"):
        ReplicasOnly(target)
