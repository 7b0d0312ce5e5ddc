# SPDX-License-Identifier: Apache-2.0
"""The step that brings experts to a second rank."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.problems import problems, require_valid
from vllm_eplb_plugin.placement.survival import survivable_ranks
from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of, rank_loads
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.policies.default import Default
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Floats, Integers, Limits, Problem
from vllm_eplb_plugin.planning.registry import find_step
from vllm_eplb_plugin.planning.steps.keep_in_place import KeepInPlace
from vllm_eplb_plugin.planning.steps.two_ranks import TwoRanks

LOSSES = (0.0, 0.02, 0.3, 1.0)


def places_of(row: list[int], ranks: int) -> dict[int, set[int]]:
    """The ranks that hold each expert."""
    size = len(row) // ranks
    return {e: {at // size for at in range(len(row)) if row[at] == e} for e in set(row)}


def on_two(row: list[int], ranks: int) -> set[int]:
    return {expert for expert, places in places_of(row, ranks).items() if len(places) > 1}


def nodes_of_groups(problem: Problem, row: list[int]) -> set[tuple[int, int]]:
    """Each group with each node that has an expert of it."""
    size, per_node = problem.num_experts // problem.num_groups, len(row) // problem.num_nodes
    return {(expert // size, slot // per_node) for slot, expert in enumerate(row)}


def most_on_two(problem: Problem, plan: Integers, whole: bool) -> int:
    """Try every placement of a layer; with ``whole``, those with groups where the plan has them."""
    homes = nodes_of_groups(problem, list(plan))
    return max(
        len(on_two(list(row), problem.num_ranks))
        for row in product(range(problem.num_experts), repeat=problem.num_slots)
        if len(set(row)) == problem.num_experts
        and not (whole and nodes_of_groups(problem, list(row)) - homes)
    )


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


@st.composite
def tiny(draw: st.DrawFn) -> tuple[Problem, Integers]:
    """One layer that every placement of can be tried, and a plan of it."""
    ranks, size, nodes = draw(
        st.sampled_from(
            [(2, 1, 1), (2, 2, 1), (2, 3, 1), (3, 2, 1), (6, 1, 1), (4, 1, 2), (1, 4, 1)]
        )
    )
    slots = ranks * size
    experts = draw(st.integers(1, min(4, slots)))
    groups = nodes if experts % nodes == 0 else 1
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    load = random.integers(0, 9, (1, experts)).astype(np.float64)
    extra = random.integers(0, experts, slots - experts)
    plan = random.permutation(np.concatenate([np.arange(experts), extra]))[None]
    problem = Problem(load, random.permuted(plan, axis=1), ranks, nodes, groups)
    if groups > 1 and draw(st.booleans()):
        plan = Default()(problem)
    return problem, plan


@settings(max_examples=150)
@given(case=tiny())
def test_at_any_cost_as_many_are_on_two_ranks_as_can_be(case: tuple[Problem, Integers]) -> None:
    problem, plan = case
    spread = TwoRanks(max_loss=1)(problem, plan)
    require_valid(problem, spread)
    homes = nodes_of_groups(problem, plan[0].tolist())
    whole = problem.respects_groups and len(homes) == problem.num_groups
    reached = len(on_two(spread[0].tolist(), problem.num_ranks))
    assert reached == most_on_two(problem, plan[0], whole)
    assert not whole or nodes_of_groups(problem, spread[0].tolist()) == homes


@settings(max_examples=300)
@given(case=planned(), max_loss=st.sampled_from(LOSSES))
def test_with_a_redundant_slot_for_each_all_are_on_two_ranks(
    case: tuple[Problem, Integers], max_loss: float
) -> None:
    problem, plan = case
    spread = TwoRanks(max_loss)(problem, plan)
    require_valid(problem, spread)
    per_node = problem.num_ranks // problem.num_nodes if problem.respects_groups else 2
    if problem.num_slots >= 2 * problem.num_experts and min(problem.num_ranks, per_node) > 1:
        assert survivable_ranks(spread, problem.num_ranks) == list(range(problem.num_ranks))


@settings(max_examples=300)
@given(case=planned(), max_loss=st.sampled_from(LOSSES))
def test_with_fewer_balance_is_kept_and_no_expert_loses_its_second_rank(
    case: tuple[Problem, Integers], max_loss: float
) -> None:
    problem, plan = case
    spread = TwoRanks(max_loss)(problem, plan)
    before, reached = (balancedness_of_layers(problem, one) for one in (plan, spread))
    if problem.num_slots < 2 * problem.num_experts:
        assert (reached >= np.minimum(before, 1 - max_loss) - 1e-9).all()
    for row, planned_row in zip(spread.tolist(), plan.tolist(), strict=True):
        assert on_two(row, problem.num_ranks) >= on_two(planned_row, problem.num_ranks)


def could_still_get_one(
    load: Floats, row: list[int], ranks: int, limit: float
) -> list[tuple[int, int]]:
    """Slots that can be spared, with experts for whom they would be a second rank, after which no
    rank is above the limit."""
    size, places, found = len(row) // ranks, places_of(row, ranks), []
    for slot, giver in enumerate(row):
        on_rank = row[slot // size * size :][:size].count(giver)
        if on_rank < 2 and len(places[giver]) < 3:
            continue
        for expert, homes in places.items():
            if len(homes) == 1 and slot // size not in homes:
                after = np.array([[*row[:slot], expert, *row[slot + 1 :]]])
                if rank_loads(load[None], after, ranks).max() <= limit:
                    found.append((slot, expert))
    return found


@settings(max_examples=200)
@given(
    problem=problems(), seed=st.integers(0, 2**32 - 1), max_loss=st.sampled_from([0.02, 0.3, 1.0])
)
def test_no_slot_is_left_that_could_be_spared(problem: Problem, seed: int, max_loss: float) -> None:
    plan = np.random.default_rng(seed).permuted(problem.old, axis=1)
    spread, ranks = TwoRanks(max_loss)(problem, plan), problem.num_ranks
    highest = rank_loads(problem.load, plan, ranks).max(axis=1)
    allowed = problem.load.sum(axis=1) / ranks / max(1 - max_loss, 1e-9)
    for load, row, limit in zip(problem.load, spread, np.maximum(highest, allowed), strict=True):
        assert not could_still_get_one(load, row.tolist(), ranks, limit * (1 - 1e-6))


@settings(max_examples=300)
@given(case=planned(), max_loss=st.sampled_from(LOSSES))
def test_a_second_time_nothing_changes(case: tuple[Problem, Integers], max_loss: float) -> None:
    problem, plan = case
    once = TwoRanks(max_loss)(problem, plan)
    assert (TwoRanks(max_loss)(problem, once) == once).all()


@settings(max_examples=200)
@given(case=planned(), max_loss=st.sampled_from(LOSSES))
def test_what_keep_in_place_does_afterwards_takes_no_second_rank(
    case: tuple[Problem, Integers], max_loss: float
) -> None:
    problem, plan = case
    spread = TwoRanks(max_loss)(problem, plan)
    kept = KeepInPlace(0.2)(problem, spread)
    for before, after in zip(spread.tolist(), kept.tolist(), strict=True):
        assert on_two(after, problem.num_ranks) >= on_two(before, problem.num_ranks)


@settings(max_examples=200)
@given(problem=problems(groups=True), max_loss=st.sampled_from(LOSSES))
def test_groups_that_are_on_one_node_stay_there(problem: Problem, max_loss: float) -> None:
    plan = Default()(problem)
    spread = TwoRanks(max_loss)(problem, plan)
    for before, after in zip(plan.tolist(), spread.tolist(), strict=True):
        assert nodes_of_groups(problem, after) == nodes_of_groups(problem, before)


@settings(max_examples=100)
@given(case=planned())
def test_what_stays_on_its_rank_stays_in_its_slot(case: tuple[Problem, Integers]) -> None:
    problem, plan = case
    size = problem.num_slots // problem.num_ranks
    spread = TwoRanks(max_loss=1)(problem, plan)
    changed = (spread != plan).any(axis=1)
    ranks = (rows[changed].reshape(-1, size) for rows in (problem.old, spread))
    for old, new in zip(*ranks, strict=True):
        for expert in set(old) & set(new):
            assert ((old == expert) & (new == expert)).sum() == min(
                (old == expert).sum(), (new == expert).sum()
            )


@settings(max_examples=200)
@given(case=planned())
def test_without_redundant_slots_the_plan_is_unchanged(case: tuple[Problem, Integers]) -> None:
    problem, _ = case
    experts = problem.num_slots
    load = np.ones((problem.num_layers, experts))
    plan = np.tile(np.arange(experts)[::-1], (problem.num_layers, 1))
    bare = Problem(load, np.ascontiguousarray(plan[:, ::-1]), problem.num_ranks)
    assert (TwoRanks(1.0)(bare, plan) == plan).all()


def test_a_second_replica_on_a_rank_is_given_away_before_a_third_rank() -> None:
    """Expert 0 has two slots of rank 0; expert 1, which is colder, is on three ranks."""
    plan = np.array([[0, 0, 1, 1, 2, 3, 1, 0, 3]])
    problem = Problem(np.array([[4.0, 0.1, 1, 1]]), plan, 3)
    spread = TwoRanks(max_loss=1)(problem, plan)[0].tolist()
    assert sorted(spread[:3]) == [0, 1, 2]
    assert spread[3:] == plan[0, 3:].tolist()


def test_a_replica_that_balance_needs_stays_where_redundancy_is_short() -> None:
    """Expert 0 has half of the load: on three of four ranks it leaves room for the others."""
    plan = np.array([[0, 1, 0, 2, 0, 3, 4, 5]])
    problem = Problem(np.array([[60.0, 10, 10, 10, 15, 15]]), plan, 4)
    assert (TwoRanks(max_loss=0.02)(problem, plan) == plan).all()
    spread = TwoRanks(max_loss=1)(problem, plan)
    assert len(on_two(spread[0].tolist(), 4)) == 2


def test_what_an_exchange_has_made_possible_is_given() -> None:
    """Only when experts 1 and 0 have exchanged slots is there room for another one."""
    plan = np.array([[2, 4, 2, 0, 1, 2, 1, 3]])
    problem = Problem(np.array([[106.0, 36, 55, 172, 115]]), plan, 2)
    spread = TwoRanks(max_loss=0.02)(problem, plan)
    assert len(on_two(spread[0].tolist(), 2)) == 3


def test_the_second_rank_of_the_placement_in_force_comes_back() -> None:
    """The policy gave expert 5's second slot to a third one of expert 0."""
    old = np.array([[0, 1, 2, 3, 4, 5, 1, 0, 3, 2, 5, 4]])
    plan = old.copy()
    plan[0, 10] = 0
    problem = Problem(np.array([[9.0, 8, 8, 8, 8, 8]]), old, 6)
    assert (TwoRanks()(problem, plan) == old).all()


def test_what_was_held_comes_back_before_a_colder_expert_gives_a_slot() -> None:
    """Expert 1 is coldest and on three ranks, but rank 3 held expert 4, whose slot expert 0 got."""
    old = np.array([[0, 1, 2, 1, 3, 4, 0, 2, 1, 3, 4, 2]])
    plan = old.copy()
    plan[0, 10] = 0
    problem = Problem(np.array([[6.0, 0.3, 20, 3, 3]]), old, 4)
    assert (TwoRanks(max_loss=1)(problem, plan) == old).all()


@pytest.mark.parametrize(("cost", "node"), [(1.0, 1), (4.0, 0)])
def test_the_second_rank_is_on_another_node_where_that_costs_nothing(
    cost: float, node: int
) -> None:
    """Rank 0 can spare a slot, for an expert of its node or of the other one."""
    plan = np.array([[0, 0, 1, 2, 3, 4, 5, 6]])
    limits = Limits(other_node_cost=cost)
    problem = Problem(np.ones((1, 7)), plan, 4, num_nodes=2, limits=limits)
    spread = TwoRanks(max_loss=1)(problem, plan)[0].tolist()
    [expert] = on_two(spread, 4)
    assert {rank // 2 for rank in places_of(plan[0].tolist(), 4)[expert]} == {node}


def test_swaps_bring_balance_back_where_every_expert_needs_its_two_slots() -> None:
    random = np.random.default_rng(0)
    load = np.exp(0.6 * random.normal(size=(8, 64)))
    old = np.tile(np.arange(128) % 64, (8, 1))
    problem = Problem(load, old, 8)
    spread = TwoRanks()(problem, Default()(problem))
    assert survivable_ranks(spread, 8) == list(range(8))
    assert balancedness_of_layers(problem, spread).min() > 0.975


def test_with_a_policy_that_keeps_what_is_there_it_moves_nothing_twice() -> None:
    random = np.random.default_rng(0)
    load = np.exp(0.6 * random.normal(size=(4, 64)))
    pipeline = Pipeline(Incremental(0.98), (TwoRanks(),))
    first = Problem(load, np.tile(np.arange(136) % 64, (4, 1)), 8)
    once = pipeline(first).placement
    assert (pipeline(replace(first, old=once)).placement == once).all()


def test_layers_that_gain_no_balance_are_spread_from_where_they_are() -> None:
    """The default policy would move much for nothing, and min_gain forbids it."""
    old = np.array([[0, 0, 1, 2, 1, 2, 3, 4, 3, 4, 5, 5]])
    problem = Problem(np.ones((1, 6)), old, 3, limits=Limits(min_gain=0.02))
    assert (Pipeline(Default())(problem).placement == old).all()
    spread = Pipeline(Default(), (TwoRanks(),))(problem).placement
    assert survivable_ranks(spread, 3) == [0, 1, 2]
    assert costs_of(problem, spread).received.sum() == 2


@pytest.mark.parametrize(("limit", "most"), [("max_layers", 1), ("max_bytes", 4)])
def test_limits_take_first_the_layers_in_which_more_are_on_two_ranks(limit: str, most: int) -> None:
    """Layer 0 gains balance, layer 1 a second rank for two experts."""
    old = np.array([[0, 1, 0, 1, 2, 3, 2, 3], [0, 1, 0, 1, 2, 2, 3, 3]])
    plan = np.array([[0, 2, 1, 3, 0, 3, 1, 2], [0, 1, 0, 1, 2, 2, 3, 3]])
    load = np.array([[9.0, 8, 1, 1], [1.0, 1, 1, 1]])
    problem = Problem(load, old, 4, limits=Limits(**{limit: most}))
    proposal = Pipeline(lambda _: plan, (TwoRanks(),))(problem)
    assert (proposal.wanted != old).any(axis=1).all()
    assert (proposal.placement != old).any(axis=1).tolist() == [False, True]
    assert survivable_ranks(proposal.placement, 4) == [0, 1, 2, 3]


def test_it_is_known_by_name_with_its_parameter() -> None:
    assert find_step("two_ranks", {"max_loss": 0.1}) == TwoRanks(0.1)


@pytest.mark.parametrize("max_loss", [-0.01, 1.5, float("nan")])
def test_a_loss_that_is_no_part_is_refused(max_loss: float) -> None:
    with pytest.raises(ValueError, match="max_loss is"):
        TwoRanks(max_loss)
