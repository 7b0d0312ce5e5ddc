# SPDX-License-Identifier: Apache-2.0
"""A combination played over a recording, against a loop without the package's own short cuts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.simulated import SHAPE, a_recording, random_loads
from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.planner import Planner
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.placement.balance import balancedness, received_by_rank
from vllm_eplb_plugin.planning.policies.default import CompiledPolicy
from vllm_eplb_plugin.planning.posing import Cluster, Posing
from vllm_eplb_plugin.planning.problem import Integers, Problem
from vllm_eplb_plugin.planning_settings import PlanningOptions
from vllm_eplb_plugin.recording.recording import Recording, Shape
from vllm_eplb_plugin.simulation.candidate import Candidate, parse_candidate
from vllm_eplb_plugin.simulation.changes import (
    changed_shares,
    changes_of,
    windows_until_balanced,
)
from vllm_eplb_plugin.simulation.combination import Combination, Grid, first_placement
from vllm_eplb_plugin.simulation.errors import SimulationError
from vllm_eplb_plugin.simulation.playing import play
from vllm_eplb_plugin.simulation.replaying import replay

DEFAULT = parse_candidate("default")
INCREMENTAL = parse_candidate("incremental")


def combination(
    candidate: Candidate = DEFAULT, interval: int = 1, window: int = 1, redundant: int = 8
) -> Combination:
    return Combination(candidate, redundant, SHAPE.ranks, SHAPE.nodes, interval, window)


def planned_by_vllm(load: Integers, old: Integers) -> Integers:
    answer = CompiledPolicy.rebalance_experts(
        torch.from_numpy(load), old.shape[1], 1, 1, SHAPE.ranks, torch.from_numpy(old)
    )
    placement: Integers = answer.numpy()
    return placement


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3))
def test_what_is_played_is_what_a_plain_loop_serves(seed: int, interval: int, window: int) -> None:
    loads = random_loads(seed, 7)
    recording = a_recording(loads)
    played = play(recording, combination(Candidate("vllm"), interval, window))
    placement = np.tile(np.arange(24) % 16, (2, 1))
    served, experts, busiest = [], [], []
    for number, load in enumerate(loads):
        served.append(
            balancedness(torch.from_numpy(load), torch.from_numpy(placement), SHAPE.ranks)
        )
        if number % interval == 0 and number < 6:
            recent = np.sum(loads[max(0, number + 1 - window) : number + 1], axis=0)
            new = planned_by_vllm(recent, placement)
            received = [
                [len(one) for one in received_by_rank(list(old_row), list(new_row), 6)]
                for old_row, new_row in zip(placement, new, strict=True)
            ]
            experts.append(int(np.sum(received)))
            busiest.append(int(np.sum(received, axis=0).max()) * 1000)
            placement = new
    assert played.balancedness == pytest.approx(served)
    assert [one.experts for one in played.rearrangements] == experts
    assert [one.bytes for one in played.rearrangements] == [1000 * one for one in experts]
    assert [one.busiest_bytes for one in played.rearrangements] == busiest
    assert [one.after for one in played.rearrangements] == list(range(0, 6, interval))


def test_a_placement_serves_the_windows_that_follow_its_plan() -> None:
    one, other = random_loads(1, 2, domains=2)
    played = play(a_recording([one, one, other]), combination())
    before, same, changed = played.balancedness
    assert same > 0.95 > before
    assert changed < 0.9
    assert played.served.tolist() == [same, changed]


def test_nothing_moves_where_nothing_is_planned() -> None:
    loads = random_loads(2, 5)
    played = play(a_recording(loads), combination(parse_candidate("none")))
    first = torch.from_numpy(np.tile(np.arange(24) % 16, (2, 1)))
    stays = [balancedness(torch.from_numpy(load), first, SHAPE.ranks) for load in loads]
    assert played.balancedness == pytest.approx(stays)
    assert played.rearrangements == ()


def test_a_window_without_load_has_no_balancedness() -> None:
    [load] = random_loads(3, 1)
    played = play(a_recording([load, np.zeros_like(load), load]), combination())
    assert np.isnan(played.balancedness).tolist() == [False, True, False]


def test_another_load_is_planned_for_at_once_from_its_own_window_where_a_trigger_says_so() -> None:
    loads = random_loads(4, 8, domains=2)
    text = '{"policy": "default", "trigger": {"changed": 0.2}}'
    slow = play(a_recording(loads), combination(interval=7, window=4))
    triggered = play(a_recording(loads), combination(parse_candidate(text), 7, 4))
    assert [(one.after, one.triggered) for one in slow.rearrangements] == [(0, False)]
    assert [(one.after, one.triggered) for one in triggered.rearrangements] == [
        (0, False),
        (4, True),
    ]
    assert triggered.balancedness[5] > 0.95 > slow.balancedness[5]


def test_what_is_still_balanced_is_not_planned_where_a_trigger_looks_for_that() -> None:
    text = '{"policy": "default", "trigger": {"below": 0.9}}'
    played = play(a_recording(random_loads(5, 6)), combination(parse_candidate(text)))
    assert [one.after for one in played.rearrangements] == [0]


def test_another_number_of_slots_or_ranks_begins_with_vllms_own_placement() -> None:
    placement = np.tile(np.arange(24)[::-1] % 16, (2, 1))
    recording = a_recording(random_loads(6, 2), placements=[placement])
    assert (first_placement(recording, SHAPE) == placement).all()
    for shape in (Shape(2, 16, 40, 4), Shape(2, 16, 24, 3)):
        first = first_placement(recording, shape)
        assert (first == np.arange(shape.slots) % 16).all()


def test_combinations_that_cannot_be_are_named_and_left_out() -> None:
    grid = Grid([parse_candidate("none"), DEFAULT], redundant=[8, 9], intervals=[1, 2])
    possible, impossible = grid.combinations(a_recording(random_loads(7, 2)))
    assert [(one.candidate.name, one.interval) for one in possible] == [
        ("none", 1), ("default", 1), ("default", 2),
    ]  # fmt: skip
    assert impossible == ["9 redundant experts on 4 ranks: 25 slots cannot be shared by 4"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("incrmental", "incremental"),
        ('{"policy": "default", "limit": {}}', "limit"),
        ('{"policy": {"incremental": {"target": 2}}}', "target is 2"),
        ("{", "no JSON"),
    ],
)
def test_a_candidate_that_cannot_be_is_refused(text: str, told: str) -> None:
    with pytest.raises(SimulationError, match=told):
        parse_candidate(text)


class Looks:
    """A policy that leaves all as it is, and keeps what it was asked."""

    def __call__(self, problem: Problem) -> Integers:
        """Plan what is there."""
        asked.append(problem)
        return problem.old


asked: list[Problem] = []


def test_another_load_is_planned_for_without_what_came_before() -> None:
    planning = {
        "policy": "tests.unit.test_simulation:Looks",
        "smoothing": {"weight": 0.5, "max_tokens": 200_000},
        "trigger": {"changed": 0.2},
    }
    loads = random_loads(12, 8, domains=2)
    asked.clear()
    play(a_recording(loads), combination(parse_candidate(json.dumps(planning)), 2, 4))
    histories = [problem.history for problem in asked if problem.history is not None]
    assert [len(history) for history in histories] == [1, 3, 1, 3]
    assert (histories[3] == loads[4:7]).all()
    _, smoothed, changed, _ = (problem.load for problem in asked)
    assert not np.allclose(smoothed, np.sum(loads[:3], axis=0))
    np.testing.assert_allclose(changed, loads[4])


class Fails:
    """A policy that fails."""

    def __call__(self, problem: Problem) -> Integers:
        """Fail."""
        raise RuntimeError("out of ideas")


def test_a_policy_that_fails_is_named_with_the_window() -> None:
    failing = parse_candidate("tests.unit.test_simulation:Fails")
    with pytest.raises(SimulationError, match="Fails' failed on the window of step 100: Runtime"):
        play(a_recording(random_loads(8, 3)), combination(failing))


def test_a_change_is_counted_once_also_where_a_window_holds_both_domains() -> None:
    one, other = random_loads(9, 2, domains=2)
    mixed = (one + other) // 2
    shares = changed_shares(a_recording([one, one, mixed, other, other, one]))
    assert shares[0] == shares[1] == shares[4] == 0
    assert changes_of(shares, 0.1) == [2, 5]
    assert changes_of(shares, 0.99) == []


def test_windows_until_balanced_end_with_the_next_change() -> None:
    served = np.array([0.99, 0.5, 0.96, 0.99, 0.5, np.nan, 0.6, 0.97, 0.99])
    assert windows_until_balanced(served, [1, 4, 7]) == [1, None, 0]
    assert windows_until_balanced(served, []) == []


def served(loads: list[Integers], planning: dict[str, object] | None, slices: int = 1) -> Recording:
    """A recording whose placements the server's own planner made."""
    options = PlanningOptions.model_validate(planning or {})
    rearrangements = Rearrangements(EventLog(None, Source(0, 0, 0)))
    planner = Planner(options, rearrangements)
    model = Moved(ModelId("a-model", 0), [1000, 1000])
    placement = np.tile(np.arange(24) % 16, (2, 1))
    placements = [placement]
    state = SimpleNamespace(
        model=SimpleNamespace(num_moe_layers=2, num_logical_experts=16),
        expert_load_pass=torch.zeros(1),
    )
    planner.count(0, state, 4)
    for load in loads:
        if planning is None:
            placement = planned_by_vllm(load, placement)
        else:
            planner._counted[0].history = SimpleNamespace(  # type: ignore[assignment]
                get=lambda load=load: torch.from_numpy(np.stack([load // slices] * slices))
            )
            total, old = torch.from_numpy(load), torch.from_numpy(placement)
            problem = planner.problem(model, total, old, 1, 1, SHAPE.ranks)
            placement = planner.pipeline(problem).placement
        placements.append(placement)
    policy = "" if planning is None else options.model_dump_json()
    return a_recording(loads, policy=policy, placements=placements, slices=slices)


@pytest.mark.parametrize(
    "planning",
    [
        None,
        {},
        {"policy": "incremental", "limits": {"max_bytes": 12000}},
        {"policy": {"incremental": {"target": 0.9}}, "steps": ["two_ranks"]},
        {"policy": "incremental", "smoothing": {"weight": 0.5}},
        {"policy": "default", "steps": ["keep_in_place"], "limits": {"min_gain": 0.02}},
    ],
)
def test_a_replay_gives_the_placements_that_were_served(planning: dict[str, object] | None) -> None:
    recording = served(random_loads(10, 6, domains=2), planning)
    again = replay(recording)
    assert [one.step for one in again] == [one.step for one in recording.placements]
    for one, other in zip(again, recording.placements, strict=True):
        assert (one.physical_to_logical == other.physical_to_logical).all()


def test_what_was_smoothed_and_forgotten_cannot_be_replayed() -> None:
    planning = {"policy": "default", "smoothing": {}, "trigger": {"changed": 0.2}}
    recording = a_recording(random_loads(11, 2), policy=json.dumps(planning))
    with pytest.raises(SimulationError, match="a-model"):
        replay(recording)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_a_problem_is_posed_as_the_server_states_it(
    seed: int, smooths: bool, grouped: bool
) -> None:
    planning = {
        "expert_groups": grouped,
        "limits": {"max_bytes": 5000, "max_layers": 1, "other_node_cost": 2.0},
        "smoothing": {"weight": 0.4, "max_tokens": 30_000} if smooths else None,
    }
    options = PlanningOptions.model_validate(planning)
    planner = Planner(options, Rearrangements(EventLog(None, Source(0, 0, 0))))
    state = SimpleNamespace(
        model=SimpleNamespace(num_moe_layers=2, num_logical_experts=16),
        expert_load_pass=torch.zeros(1),
    )
    planner.count(0, state, 4)
    posing, cluster = Posing(options), Cluster(4, 2, 2, (1000, 1000))
    old = np.tile(np.arange(24) % 16, (2, 1))
    for load in random_loads(seed, 3, domains=2):
        slices = torch.from_numpy(np.stack([load // 2, load - load // 2]))
        planner._counted[0].history = SimpleNamespace(get=lambda slices=slices: slices)  # type: ignore[assignment]
        stated = planner.problem(
            Moved(ModelId("a-model", 0), [1000, 1000]),
            slices.sum(dim=0), torch.from_numpy(old), 2, 2, 4,
        )  # fmt: skip
        posed = posing.pose_window(slices.double().numpy(), old, cluster)
        for name, value in vars(stated).items():
            np.testing.assert_array_equal(value, getattr(posed, name), err_msg=name)
