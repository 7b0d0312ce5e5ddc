# SPDX-License-Identifier: Apache-2.0
"""What the planner hands to a pipeline, on one rank."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.planner import Planner
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import Trigger
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.planning.problem import Integers, Limits, Problem
from vllm_eplb_plugin.planning_settings import PlanningOptions
from vllm_eplb_plugin.recording.recording import InForce, Recording, Served, Shape, Window
from vllm_eplb_plugin.recording.writer import in_few_slices
from vllm_eplb_plugin.simulation.replaying import replay

OLD = torch.tensor([[0, 1, 2, 3, 0, 1]])
MODEL = Moved(ModelId("name", 0), [100])
seen: list[Problem] = []


class Look:
    """A policy that leaves all as it is, and keeps what it was asked."""

    def __call__(self, problem: Problem) -> Integers:
        """Plan what is there."""
        seen.append(problem)
        return problem.old


class Engine:
    """A planner, and the model whose steps it counts."""

    def __init__(self, group: dist.ProcessGroup, **planning: Any) -> None:
        self._group, self._step = group, 0
        self.rearrangements = Rearrangements(EventLog(None, Source(0, 0, 0)))
        named = {"policy": "tests.unit.test_planner:Look"} | planning
        self.planner = Planner(PlanningOptions.model_validate(named), self.rearrangements)
        self.planner.vllm_policy = SimpleNamespace(rebalance_experts=lambda *_: "vLLM's")
        model = SimpleNamespace(num_moe_layers=1, num_logical_experts=4)
        load = torch.zeros(1, 6, dtype=torch.int32)
        self.state = SimpleNamespace(
            model=model, expert_load_pass=load, physical_to_logical_map=OLD
        )
        self.planner.count(0, self.state, 4)

    def serve(self, load: list[int], steps: int = 4) -> None:
        for _ in range(steps):
            self._step += 1
            self.state.expert_load_pass[:] = torch.tensor(load)
            self.planner.step(self._step, [self.state], True)

    def plan(self, trigger: Trigger = "interval", nodes: int = 1, groups: int = 1) -> Problem:
        self.rearrangements.trigger = trigger
        self.rearrangements.start("sync", [MODEL])
        [load] = self.planner.take_loads(self._group)
        asked = self.planner.ask("sync")
        assert torch.equal(asked.rebalance_experts(load, 6, groups, nodes, 2, OLD), OLD)
        assert asked.origin is not None
        return seen[-1]


def test_a_problem_has_the_window_and_its_parts(group: dist.ProcessGroup) -> None:
    engine = Engine(group, limits={"min_gain": 0.01, "other_node_cost": 2})
    engine.serve([1, 2, 3, 4, 5, 6], 3)
    problem = engine.plan(nodes=2, groups=2)
    assert problem.load.tolist() == [[18, 24, 9, 12]]
    assert problem.history is not None
    assert problem.history.tolist() == [
        [[0, 0, 0, 0]],
        [[6, 8, 3, 4]],
        [[6, 8, 3, 4]],
        [[6, 8, 3, 4]],
    ]
    assert (problem.num_ranks, problem.num_nodes, problem.num_groups) == (2, 2, 2)
    assert problem.bytes_of.tolist() == [100]
    assert problem.limits == Limits(min_gain=0.01, other_node_cost=2)


def test_expert_groups_can_be_ignored(group: dist.ProcessGroup) -> None:
    engine = Engine(group, expert_groups=False)
    assert engine.plan(nodes=2, groups=2).num_groups == 1


def test_another_load_is_planned_for_without_what_came_before(group: dist.ProcessGroup) -> None:
    trigger = {"changed": 0.2, "check_steps": 5}
    engine = Engine(group, trigger=trigger, smoothing={})
    engine.planner.count(0, engine.state, 20)
    engine.serve([9, 0, 0, 0, 0, 0], 10)
    engine.plan()
    engine.serve([0, 0, 5, 0, 0, 0], 9)
    assert engine.plan("changed_load").load.tolist() == [[0, 0, 45, 0]]


@pytest.mark.parametrize(
    ("began", "reason"),
    [(None, None), ([[1.0, 0, 0, 0]], None), ([[0, 0, 0, 5e6]], "changed_load")],
)
def test_what_is_served_is_compared_with_the_recorded_load_that_experts_begin_by(
    began: list[list[float]] | None, reason: str | None, group: dist.ProcessGroup
) -> None:
    engine = Engine(group, trigger={"changed": 0.2, "check_steps": 5})
    planner, load = engine.planner, None if began is None else np.array(began)
    planner.count(0, engine.state, 20, load)
    reasons = []
    for step in range(1, 10):
        engine.serve([9, 0, 0, 0, 0, 0], 1)
        reasons.append(planner.look(step, [engine.state], group))
    assert reasons == [None] * 8 + [reason]


def test_loads_of_few_tokens_are_smoothed(group: dist.ProcessGroup) -> None:
    engine = Engine(group, smoothing={"weight": 0.5, "max_tokens": 100})
    engine.serve([0, 0, 10, 0, 0, 0])
    assert engine.plan().load.tolist() == [[0, 0, 40, 0]]
    engine.serve([0, 0, 0, 10, 0, 0])
    assert engine.plan().load.tolist() == [[0, 0, 20, 20]]
    engine.planner.start_anew()
    engine.serve([0, 0, 0, 10, 0, 0])
    assert engine.plan().load.tolist() == [[0, 0, 0, 40]]


def test_nothing_is_planned_where_nobody_follows_or_slots_change(group: dist.ProcessGroup) -> None:
    engine = Engine(group)
    load = torch.ones(1, 4)
    ask = engine.planner.ask
    assert ask("sync").rebalance_experts(load, 6, 1, 1, 2, OLD) == "vLLM's"
    engine.rearrangements.start("sync", [MODEL])
    assert ask("async").rebalance_experts(load, 6, 1, 1, 2, OLD) == "vLLM's"
    assert ask("sync").rebalance_experts(load, 8, 1, 1, 2, OLD) == "vLLM's"
    empty = OLD.where(OLD != 3, -1)
    assert ask("sync").rebalance_experts(load, 6, 1, 1, 2, empty) == "vLLM's"
    assert torch.equal(ask("sync").rebalance_experts(load, 6, 1, 1, 2, OLD), OLD)
    np.testing.assert_array_equal(seen[-1].load, load)


def test_default_is_the_policy_of_vllm_that_it_stands_for(group: dist.ProcessGroup) -> None:
    engine = Engine(group, policy="default")
    asked: list[tuple[object, ...]] = []

    def rebalance_experts(*arguments: object) -> torch.Tensor:
        asked.append(arguments)
        return OLD

    engine.planner.stand_for(SimpleNamespace(rebalance_experts=rebalance_experts))
    engine.rearrangements.start("sync", [MODEL])
    engine.planner.ask("sync").rebalance_experts(torch.ones(1, 4), 6, 1, 1, 2, OLD)
    assert len(asked) == 1


@pytest.mark.parametrize("smoothing", [None, {"weight": 0.5, "max_tokens": 10_000}])
@pytest.mark.parametrize("expert_groups", [True, False])
def test_a_recorded_window_poses_the_problem_that_was_planned(
    group: dist.ProcessGroup, smoothing: dict[str, object] | None, expert_groups: bool
) -> None:
    engine = Engine(group, smoothing=smoothing, expert_groups=expert_groups)
    served, windows = [], []
    for load in ([1, 2, 3, 4, 5, 6], [0, 9, 0, 9, 0, 7], [5, 5, 0, 0, 0, 0]):
        engine.serve(load)
        served.append(engine.plan(nodes=2, groups=2))
        parts = engine.planner.parts(0)
        assert parts is not None
        windows.append(Window(len(served), 0.0, in_few_slices(parts.get().numpy())))
    shape = Shape(layers=1, experts=4, slots=6, ranks=2, nodes=2, groups=2)
    policy = engine.planner.options.model_dump_json()
    of_model = Served("name", 0, shape, (100,), "0.32.0", 4, 4, policy)
    first = InForce(0, 0.0, OLD.numpy())
    seen.clear()
    replay(Recording(of_model, windows, [first]))
    assert len(seen) == len(served)
    for posed, stated in zip(seen, served, strict=True):
        assert posed.old.dtype == np.int64
        assert posed.old.flags.c_contiguous
        for name, value in vars(stated).items():
            np.testing.assert_array_equal(getattr(posed, name), value, err_msg=name)


def test_loads_of_many_tokens_do_not_overflow(group: dist.ProcessGroup) -> None:
    engine = Engine(group)
    engine.serve([2**31 - 1, 0, 0, 0, 0, 0], 4)
    assert engine.plan().load.tolist() == [[4 * (2**31 - 1), 0, 0, 0]]
