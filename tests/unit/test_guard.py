# SPDX-License-Identifier: Apache-2.0
"""What a policy returns is checked before anything moves. Several ranks: tests/releases."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from vllm_eplb_plugin.placement.maps import InvalidPlacementError
from vllm_eplb_plugin.planning.guard import GuardedPolicy, Plan

LOAD = torch.tensor([[5, 1, 1], [1, 1, 5]])
OLD = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 1]])
NEW = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 2]])


@pytest.fixture(scope="module", autouse=True)
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store: Path = tmp_path_factory.mktemp("gloo") / "store"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


class Ask:
    """A guarded policy that gives one answer, and the plans that were made of it."""

    def __init__(self, answer: Any, allow_empty_slots: bool = False) -> None:
        def rebalance_experts(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        policy = SimpleNamespace(rebalance_experts=rebalance_experts, name="asked")
        self.plans: list[Plan] = []
        self.guard = GuardedPolicy(
            policy, lambda: dist.group.WORLD, self.plans.append, allow_empty_slots
        )

    def __call__(self, old: torch.Tensor | None = OLD, slots: int = 4) -> torch.Tensor:
        return self.guard.rebalance_experts(LOAD, slots, 1, 1, 2, old)


def test_a_valid_answer_is_returned_and_reported() -> None:
    ask = Ask(NEW)
    assert torch.equal(ask(), NEW)
    (plan,) = ask.plans
    assert plan.rejection is None
    assert plan.slots_changed == [0, 1]
    assert plan.num_ranks == 2


def test_a_policy_that_asks_a_guarded_one_is_checked_once() -> None:
    inner = Ask(NEW)
    ask = Ask(NEW)
    ask.guard = dataclasses.replace(ask.guard, policy=inner.guard)
    assert torch.equal(ask(), NEW)
    assert (len(ask.plans), len(inner.plans)) == (1, 0)
    assert torch.equal(inner(), NEW)
    assert len(inner.plans) == 1


def test_three_tensors_are_taken_for_their_first() -> None:
    assert torch.equal(Ask((NEW, torch.zeros(1), torch.zeros(1)))(), NEW)


def test_an_int32_answer_becomes_the_map_s_int64() -> None:
    placement = Ask(NEW.to(torch.int32))()
    assert placement.dtype == torch.int64
    assert torch.equal(placement, NEW)


def test_an_answer_is_not_the_tensor_that_a_commit_overwrites() -> None:
    live = OLD.clone()
    ask = Ask(ValueError("no"))
    kept = ask(live)
    live.fill_(9)
    assert torch.equal(kept, OLD)
    assert torch.equal(ask.plans[0].old, OLD)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (torch.tensor([[0, 1, 1, 0], [0, 1, 2, 2]]), "no slot for logical expert 2"),
        (NEW[:, :3], r"not \[2, 3\]"),
        (None, "not NoneType"),
        (ZeroDivisionError("no load"), "ZeroDivisionError: no load"),
        (torch.tensor([[0, 1, 2, -1], [0, 1, 2, 2]]), "names logical expert -1"),
    ],
)
def test_an_invalid_answer_leaves_the_old_placement_and_says_why(answer: Any, reason: str) -> None:
    ask = Ask(answer)
    assert torch.equal(ask(), OLD)
    (plan,) = ask.plans
    assert plan.slots_changed == [0, 0]
    assert plan.rejection is not None
    assert re.search(reason, plan.rejection)


def test_empty_slots_are_taken_where_elastic_ep_allows_them() -> None:
    answer = torch.tensor([[0, 1, 2, -1], [0, 1, 2, 2]])
    assert torch.equal(Ask(answer, allow_empty_slots=True)(), answer)


def test_an_invalid_answer_cannot_be_ignored_when_the_number_of_slots_changes() -> None:
    with pytest.raises(InvalidPlacementError, match="the number of slots changes"):
        Ask(ValueError("no"))(OLD, slots=6)


def test_everything_else_is_the_policy_s_own() -> None:
    assert Ask(NEW).guard.name == "asked"


class Mover:
    """A policy that exchanges two slots of what it believes to be in force."""

    def __init__(self, wanted: torch.Tensor | None = None) -> None:
        self.wanted = wanted
        self.asked: list[torch.Tensor] = []

    def rebalance_experts(self, *arguments: Any) -> torch.Tensor:
        self.asked.append(arguments[-1].clone())
        return arguments[-1].flip(1) if self.wanted is None else self.wanted


@pytest.mark.parametrize("asks_again", [False, True])
def test_a_policy_asked_again_starts_from_its_own_plan(asks_again: bool) -> None:
    policy, plans = Mover(NEW), list[Plan]()
    guard = GuardedPolicy(policy, lambda: dist.group.WORLD, plans.append, asks_again=asks_again)
    assert torch.equal(guard.rebalance_experts(LOAD, 4, 1, 1, 2, OLD), NEW)
    assert plans[0].rejection is None
    for asked, old in zip(policy.asked, [OLD, NEW] if asks_again else [OLD], strict=True):
        assert torch.equal(asked, old)


def test_a_plan_that_a_second_one_would_change_is_rejected() -> None:
    plans: list[Plan] = []
    guard = GuardedPolicy(Mover(), lambda: dist.group.WORLD, plans.append, asks_again=True)
    assert torch.equal(guard.rebalance_experts(LOAD, 4, 1, 1, 2, OLD), OLD)
    assert "still moves experts into 6 slots" in str(plans[0].rejection)
