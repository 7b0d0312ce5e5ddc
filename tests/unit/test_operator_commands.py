# SPDX-License-Identifier: Apache-2.0
"""Commands are numbers of which the highest is the newest, whoever gave it."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from vllm_eplb_plugin.engine import commands as engine_commands
from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.plan_alone import PlanAlone
from vllm_eplb_plugin.engine.session import Session
from vllm_eplb_plugin.engine.worker_settings import OVERRIDES
from vllm_eplb_plugin.observe import commands
from vllm_eplb_plugin.observe.commands import ACTIONS, STEPS_BETWEEN, STEPS_LATER, Command
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.placement.balance import balancedness, count_received_experts
from vllm_eplb_plugin.planning.guard import GuardedPolicy, Plan
from vllm_eplb_plugin.settings import Settings

NOW = 1_795_632_425_600
"""Unix milliseconds."""


@pytest.fixture(autouse=True)
def _nothing_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_newest", 0)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_number_says_what_it_is(action: Any) -> None:
    command = Command(NOW, action)
    assert Command.of(command.number) == command
    assert torch.tensor([command.number]).item() == command.number


def test_what_was_given_later_is_higher_whatever_it_asks_for() -> None:
    numbers = [Command(NOW + ms, action).number for ms in range(3) for action in ACTIONS]
    assert numbers == sorted(set(numbers))


def test_who_gives_a_command_after_another_is_newer_although_his_clock_is_behind() -> None:
    ahead = Command(NOW + 60_000, "pause")
    behind = Command(NOW, "resume")
    later = behind.after(ahead.number)
    assert later.number > ahead.number and later.action == "resume"
    assert later.after(ahead.number) is later
    assert behind.after(behind.number).number > behind.number


@pytest.mark.parametrize("number", [0, -1, NOW * 8 + 7, 2**63 + 1])
def test_what_is_no_command_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="is no command"):
        commands.note(number)
    assert commands.newest() == 0


def test_the_newest_is_kept_and_whoever_comes_late_is_told() -> None:
    first, second = Command(NOW, "pause").number, Command(NOW + 1, "plan").number
    assert commands.note(second) == 0
    assert commands.note(first) == second
    assert commands.note(second) == second
    assert commands.newest() == second


@pytest.mark.parametrize(
    ("settings", "enable_eplb", "hears"),
    [
        ({"control": True}, True, True),
        ({}, True, False),
        ({"control": True, "enabled": False}, True, False),
        ({"control": True}, False, False),
    ],
)
def test_a_worker_notes_what_it_is_called_with_where_that_is_asked_for(
    settings: dict[str, Any], enable_eplb: bool, hears: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_eplb_plugin.settings._of_this_process", None)
    parallel = SimpleNamespace(enable_eplb=enable_eplb)
    config = SimpleNamespace(parallel_config=parallel, additional_config={"eplb_plugin": settings})
    worker = SimpleNamespace()
    [hook] = OVERRIDES
    hook.replace(lambda *_: None)(worker, config)
    assert hasattr(worker, "eplb_command") == hears
    if hears:
        assert worker.eplb_command(Command(NOW, "plan").number) == 0
        assert commands.newest() == Command(NOW, "plan").number


def state_of(session: Session, **values: Any) -> Any:
    """What is asked of an `EplbState`, at the beginning of an interval of 1000."""
    usual = {
        "model_states": {"one": SimpleNamespace(rebalanced=False)},
        "expert_rearrangement_step": 0,
        "expert_rearrangement_step_interval": 1000,
        "expert_load_window_size": 10,
    }
    state = SimpleNamespace(**{**usual, **values})
    session.attach(state)
    return state


@pytest.fixture
def session(group: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Of a rank that is alone."""
    ranks = SimpleNamespace(cpu_group=group)
    monkeypatch.setattr(engine_commands, "get_ep_group", lambda: ranks)
    return Session(Settings(control=True), Source(0, 0, 0))


def make_steps(session: Session, state: Any, number: int) -> list[int]:
    """Those in which an operator's rearrangement begins."""
    assert session.commands is not None
    begun = []
    for _ in range(number):
        session.rearrangements.step += 1
        if session.commands.before_step(state, "interval") == "operator":
            begun.append(session.rearrangements.step)
            session.rearrangements.start("sync", [])
            state.expert_rearrangement_step = -1
        state.expert_rearrangement_step += 1
    return begun


def test_without_the_setting_nobody_asks_for_commands() -> None:
    assert Session(Settings(), Source(0, 0, 0)).commands is None


def test_a_rearrangement_begins_only_after_the_one_that_is_under_way(session: Session) -> None:
    state = state_of(session)
    commands.note(Command(NOW, "rearrange").number)
    [model_state] = state.model_states.values()
    model_state.rebalanced = True
    assert make_steps(session, state, STEPS_BETWEEN + STEPS_LATER + 20) == []
    model_state.rebalanced = False
    step = session.rearrangements.step
    assert make_steps(session, state, 20) == [step + 1]


def test_the_log_says_once_what_was_carried_out(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    commands.note(Command(NOW, "pause").number)
    with caplog.at_level("INFO", "vllm.eplb_plugin"):
        make_steps(session, state_of(session), 5 * STEPS_BETWEEN)
    assert caplog.messages == [f"EPLB: an operator's pause, in step {STEPS_BETWEEN + STEPS_LATER}."]


@pytest.mark.parametrize("interval", [1, 2, 10])
def test_while_paused_no_interval_ends(interval: int, session: Session) -> None:
    state = state_of(session, expert_rearrangement_step_interval=interval)
    commands.note(Command(NOW, "pause").number)
    make_steps(session, state, STEPS_BETWEEN + STEPS_LATER)
    for _ in range(3 * interval):
        make_steps(session, state, 1)
        assert state.expert_rearrangement_step < interval


def test_only_the_last_commands_are_kept(session: Session) -> None:
    state = state_of(session)
    for order in range(20):
        commands.note(Command(NOW + order, "resume").number)
        make_steps(session, state, STEPS_BETWEEN)
    make_steps(session, state, STEPS_BETWEEN)
    assert session.commands is not None
    kept = [Command.of(status.number).order - NOW for status in session.commands.status()]
    assert kept == list(range(12, 20))


OLD = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 0]])
NEW = torch.tensor([[1, 0, 2, 1], [0, 1, 2, 0]])
LOAD = torch.tensor([[9.0, 1, 2], [3, 3, 3]])


def test_a_plan_alone_says_what_a_rearrangement_would_do() -> None:
    plan = Plan(LOAD, OLD, OLD, 2, proposal=NEW)
    received = count_received_experts(OLD, NEW, 2)
    before, after = (balancedness(LOAD, placement, 2) for placement in (OLD, NEW))
    assert str(PlanAlone(plan, NEW, [2_000_000, 1])) == (
        f"the plan alone was asked for: {sum(received)} experts ({2 * received[0]} MB) would move, "
        f"in 1 of 2 layers, and balancedness be {after:.3f} instead of {before:.3f}"
    )
    assert received == [1, 0]


@pytest.mark.parametrize(
    ("answer", "rejection"), [(NEW, None), (NEW.where(NEW != 2, 0), "InvalidPlacementError")]
)
def test_where_a_plan_alone_is_asked_for_the_old_placement_stays(
    answer: torch.Tensor, rejection: str | None, group: dist.ProcessGroup
) -> None:
    plans: list[Plan] = []
    policy = SimpleNamespace(rebalance_experts=lambda *_: answer)
    ask = functools.partial(GuardedPolicy, policy, lambda: group, plans.append)
    guarded = ask(only_plans=True)
    assert torch.equal(guarded.rebalance_experts(LOAD, 4, 1, 1, 2, OLD), OLD)
    [plan] = plans
    assert not any(plan.slots_changed)
    if rejection is None:
        assert plan.rejection is None
        assert plan.proposal is not None and torch.equal(plan.proposal, NEW)
    else:
        assert plan.rejection is not None and plan.rejection.startswith(rejection)
        assert plan.proposal is None


def test_one_plan_alone_leaves_the_next_rearrangement_as_it_is(session: Session) -> None:
    rearrangements = session.rearrangements
    rearrangements.only_plan = True
    rearrangements.start("sync", [Moved(ModelId("model", 0), [1, 1])])
    assert rearrangements.only_plans()
    rearrangements.planned(Plan(LOAD, OLD, OLD, 2, proposal=NEW), "sync")
    assert rearrangements.outcomes == {"skipped": 1}
    rearrangements.start("sync", [Moved(ModelId("model", 0), [1, 1])])
    assert not rearrangements.only_plans()
