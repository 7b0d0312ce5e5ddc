# SPDX-License-Identifier: Apache-2.0
"""The incremental policy: valid, never worse, within limits, and done when it is done."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_eplb_plugin.placement.maps import validate_placement
from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of
from vllm_eplb_plugin.planning.grouping import whole_groups
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Integers, Limits, Problem


@st.composite
def problems(draw: st.DrawFn, limits: Limits | None = None, groups: bool = False) -> Problem:
    """Problems of all sizes, from placements that are balanced, random or vLLM's first one."""
    nodes = draw(st.integers(1, 3)) if not groups else draw(st.integers(2, 3))
    ranks = nodes * draw(st.integers(1, 4))
    size = draw(st.integers(1, 6))
    slots = ranks * size
    num_groups = 1
    if groups:
        num_groups = nodes * draw(st.integers(1, 2))
        most = slots // nodes // (num_groups // nodes)
        experts = num_groups * draw(st.integers(1, max(1, most)))
        if experts > slots:
            experts = num_groups
        if experts > slots:
            num_groups = experts = nodes
    else:
        experts = draw(st.integers(1, slots))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    layers = draw(st.integers(1, 3))
    sigma = draw(st.sampled_from([0.0, 0.6, 2.0, 8.0]))
    load = np.round(np.exp(sigma * random.normal(size=(layers, experts))) * 100)
    if draw(st.booleans()):
        load[random.random(load.shape) < 0.3] = 0.0
    old = np.empty((layers, slots), np.int64)
    scattered = draw(st.booleans())
    for row in old:
        if groups and not scattered:
            fill_by_groups(row, experts, num_groups, nodes, random)
        else:
            row[:experts] = np.arange(experts)
            row[experts:] = random.integers(0, experts, slots - experts)
            random.shuffle(row)
    cost = draw(st.sampled_from([1.0, 4.0]))
    return Problem(
        load,
        old,
        ranks,
        nodes,
        num_groups,
        expert_bytes=random.integers(1, 4, layers),
        limits=limits or Limits(other_node_cost=cost),
    )


def fill_by_groups(
    row: Integers, experts: int, groups: int, nodes: int, random: np.random.Generator
) -> None:
    size, each, slots = experts // groups, groups // nodes, len(row) // nodes
    order = random.permutation(groups)
    for node in range(nodes):
        mine = np.concatenate(
            [np.arange(group * size, (group + 1) * size) for group in order[node * each :][:each]]
        )
        extra = random.choice(mine, slots - len(mine))
        row[node * slots : (node + 1) * slots] = random.permutation(np.concatenate([mine, extra]))


def require_valid(problem: Problem, placement: Integers) -> None:
    shape = (problem.num_layers, problem.num_slots)
    validate_placement(torch.from_numpy(placement), shape, problem.num_experts)


@settings(max_examples=300, deadline=None)
@given(problem=problems() | problems(groups=True))
def test_a_plan_is_valid_and_no_layer_is_less_balanced(problem: Problem) -> None:
    placement = Incremental()(problem)
    require_valid(problem, placement)
    before = balancedness_of_layers(problem, problem.old)
    assert (balancedness_of_layers(problem, placement) >= before - 1e-12).all()


@settings(max_examples=200, deadline=None)
@given(problem=problems() | problems(groups=True))
def test_planned_again_from_its_own_result_nothing_changes(problem: Problem) -> None:
    once = Incremental()(problem)
    again = Problem(
        problem.load, once, problem.num_ranks, problem.num_nodes, problem.num_groups,
        problem.expert_bytes, limits=problem.limits,
    )  # fmt: skip
    assert (Incremental()(again) == once).all()


@st.composite
def limited(draw: st.DrawFn) -> Problem:
    budget = st.none() | st.integers(0, 12)
    limits = Limits(draw(budget), draw(budget), draw(st.none() | st.integers(0, 3)))
    return draw(problems(limits) | problems(limits, groups=True))


@settings(max_examples=300, deadline=None)
@given(problem=limited())
def test_limits_hold_exactly(problem: Problem) -> None:
    placement = Incremental()(problem)
    require_valid(problem, placement)
    before = balancedness_of_layers(problem, problem.old)
    assert (balancedness_of_layers(problem, placement) >= before - 1e-12).all()
    received = costs_of(problem, placement).bytes_received(problem.bytes_of)
    limits = problem.limits
    for limit, found in (
        (limits.max_bytes, received.sum()),
        (limits.max_bytes_per_rank, received.sum(axis=0).max()),
        (limits.max_layers, (placement != problem.old).any(axis=1).sum()),
    ):
        assert limit is None or found <= limit


@settings(max_examples=100, deadline=None)
@given(problem=problems(groups=True))
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
