# SPDX-License-Identifier: Apache-2.0
"""What an operator asks of EPLB at run time is done by both ranks, in the same step."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.releases.ranks import RankFailure, Ranks, assert_nothing_wrong
from vllm_eplb_plugin.observe.commands import STEPS_BETWEEN, STEPS_LATER

FIRST = STEPS_BETWEEN + STEPS_LATER
"""The step in which what was heard before is carried out."""
SECOND = FIRST + STEPS_BETWEEN
NUMBERS: dict[str, Any] = {"window": 10, "interval": 40}
MODES = pytest.mark.parametrize("use_async", [False, True])


def run(ranks: Ranks, commands: list[tuple[int, int, int, str]], **job: Any) -> dict[str, Any]:
    """What both ranks saw, after it was compared; commands are step, rank, order and action."""
    arguments = {**NUMBERS, "commands": commands}
    for name in NUMBERS:
        arguments[name] = job.pop(name, NUMBERS[name])
    settings = {"control": True, **job.pop("settings", {})}
    reports = ranks(scenario="commanded", arguments=arguments, settings=settings, **job)
    assert_nothing_wrong(reports)
    first, second = reports
    for seen in ("started", "paused", "carried", "outcomes"):
        assert first[seen] == second[seen]
    return first


@MODES
def test_what_one_rank_heard_is_done_by_both_in_the_same_step(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    job = {"use_async": use_async, "models": 2, "steps": 100, "interval": 1000, "redundant": 4}
    seen = run(some_ranks, [(20, 1, 7, "rearrange")], events_dir=str(tmp_path), **job)
    # vLLM's own first one comes after a quarter of an interval.
    assert seen["started"] == [FIRST]
    [carried] = seen["carried"]
    assert (carried["action"], carried["step"]) == ("rearrange", FIRST)
    assert (carried["rearrangement"], carried["ended"]) == (1, True)
    assert sorted(carried["outcomes"]) == ["model0: finished", "model1: finished"]
    for rank in range(2):
        lines = (tmp_path / f"rank{rank}.jsonl").read_text().splitlines()
        planned = [e for e in map(json.loads, lines) if e["event"] == "rearrangement_planned"]
        assert [event["trigger"] for event in planned] == ["operator", "operator"]


@MODES
def test_pause_holds_and_resume_goes_on(use_async: bool, some_ranks: Ranks) -> None:
    commands = [(1, 0, 5, "pause"), (FIRST + 1, 1, 6, "resume")]
    seen = run(some_ranks, commands, use_async=use_async, steps=220)
    without = run(some_ranks, [], use_async=use_async, steps=220)
    assert seen["paused"] == list(range(FIRST, SECOND))
    assert [step for step in seen["started"] if step < FIRST] == [10, 50]
    assert not [step for step in seen["started"] if FIRST <= step < SECOND]
    assert len([step for step in seen["started"] if step >= SECOND]) >= 2
    assert [step for step in without["started"] if FIRST <= step < SECOND] == [90, 130]


@MODES
def test_what_is_under_way_when_pause_comes_finishes(use_async: bool, some_ranks: Ranks) -> None:
    """The last one before it begins a step earlier, and in async mode takes several."""
    interval = 4 * (FIRST - 1) // 5
    job = {"use_async": use_async, "interval": interval, "steps": FIRST + 30, "models": 2}
    seen = run(some_ranks, [(3, 1, 5, "pause")], **job)
    assert seen["started"] and max(seen["started"]) < FIRST
    assert set(seen["outcomes"]) == {"finished"}
    assert seen["outcomes"]["finished"] == 2 * len(seen["started"])


@MODES
@pytest.mark.parametrize("paused", [False, True])
def test_a_plan_moves_nothing_and_tells_what_it_would(
    paused: bool, use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    commands = [(1, 1, 5, "pause")] if paused else []
    commands.append((FIRST + 1, 1, 6, "plan"))
    job = {"use_async": use_async, "interval": 1000, "events_dir": str(tmp_path)}
    seen = run(some_ranks, commands, steps=SECOND + 20, **job)
    assert seen["started"] == [SECOND]
    assert seen["placements"] == []
    assert seen["outcomes"] == {"skipped": 1}
    told = seen["carried"][-1]
    assert told["ended"] and told["rearrangement"] == 1
    [text] = told["outcomes"]
    assert text.startswith("model0: skipped: the plan alone was asked for: ")
    assert "would move, in 3 of 3 layers, and balancedness be 0." in text
    for rank in range(2):
        lines = (tmp_path / f"rank{rank}.jsonl").read_text().splitlines()
        [event] = [e for e in map(json.loads, lines) if e["event"] == "rearrangement_skipped"]
        assert f"model0: skipped: {event['reason']}" == text


@MODES
def test_a_plan_does_not_put_off_the_next_rearrangement(use_async: bool, some_ranks: Ranks) -> None:
    job = {"use_async": use_async, "interval": 80, "steps": 200}
    seen = run(some_ranks, [(1, 0, 5, "plan")], **job)
    without = run(some_ranks, [], **job)
    assert seen["started"] == sorted([*without["started"], FIRST])
    assert seen["placements"] == without["placements"]


def test_a_plan_is_what_a_rearrangement_would_have_been(some_ranks: Ranks) -> None:
    job = {"interval": 1000, "steps": FIRST + 5}
    [told] = run(some_ranks, [(1, 0, 5, "plan")], **job)["carried"]
    seen = run(some_ranks, [(1, 0, 5, "rearrange")], **job)
    before, after = seen["initial"][0], seen["placements"][0][0]
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    assert f"in {changed} of 3 layers" in told["outcomes"][0]


@MODES
def test_the_newest_wins_whoever_heard_it(use_async: bool, some_ranks: Ranks) -> None:
    commands = [(2, 0, 9, "plan"), (3, 1, 8, "rearrange"), (4, 0, 7, "pause")]
    seen = run(some_ranks, commands, use_async=use_async, interval=1000, steps=FIRST + 20)
    assert [carried["action"] for carried in seen["carried"]] == ["plan"]
    assert (seen["started"], seen["paused"], seen["placements"]) == ([FIRST], [], [])


def test_a_command_is_carried_out_once_however_often_it_comes(some_ranks: Ranks) -> None:
    commands = [(1, 0, 5, "rearrange"), (FIRST + 1, 1, 5, "rearrange")]
    seen = run(some_ranks, commands, interval=1000, steps=SECOND + 5)
    assert seen["started"] == [FIRST]


@MODES
def test_a_rearrangement_waits_for_loads_of_the_placement_in_force(
    use_async: bool, some_ranks: Ranks
) -> None:
    """vLLM's own began ten steps before, and its window has thirty."""
    interval = (FIRST - 10) * 4
    job = {"use_async": use_async, "interval": interval, "window": 30, "steps": FIRST + 60}
    first, second = run(some_ranks, [(1, 1, 5, "rearrange")], **job)["started"]
    assert first == interval // 4
    assert first + 30 < second <= first + 36


def test_what_is_asked_for_amid_an_interval_is_planned_from_a_whole_window(
    some_ranks: Ranks, tmp_path: Path
) -> None:
    """vLLM counts nothing there from 0.20 on."""
    job = {"interval": 1000, "steps": FIRST + 1, "events_dir": str(tmp_path)}
    run(some_ranks, [(1, 0, 5, "rearrange")], **job)
    lines = (tmp_path / "rank0.jsonl").read_text().splitlines()
    placed = [e for e in map(json.loads, lines) if e["event"] == "placement"][-1]
    # A step has at least 48 tokens a layer and rank, and rank 1 makes dummy ones, too.
    assert all(sum(tokens) > 15 * 48 for tokens in placed["logical_load"])


@MODES
def test_where_vllm_would_begin_one_itself_nothing_is_waited_for(
    use_async: bool, some_ranks: Ranks
) -> None:
    job = {"use_async": use_async, "interval": 12, "window": 12, "steps": FIRST + 40}
    seen = run(some_ranks, [(1, 1, 5, "rearrange")], **job)
    without = run(some_ranks, [], **job)
    assert seen["started"] == without["started"]
    [carried] = seen["carried"]
    assert carried["ended"] and carried["rearrangement"] is not None


def test_pause_comes_before_what_was_asked_for_and_has_not_begun(some_ranks: Ranks) -> None:
    commands = [(1, 1, 5, "rearrange"), (FIRST + 1, 0, 6, "pause")]
    interval = (FIRST - 10) * 4
    seen = run(some_ranks, commands, interval=interval, window=100, steps=SECOND + 60)
    assert seen["started"] == [interval // 4]
    assert seen["carried"][0]["outcomes"] == ["not begun: pause came before"]


@pytest.mark.parametrize("trigger", [{"below": 0.999}, {"changed": 0.01}])
def test_pause_holds_a_trigger_too(trigger: dict[str, float], some_ranks: Ranks) -> None:
    planning = {"policy": "incremental", "trigger": {**trigger, "check_steps": 5, "min_steps": 10}}
    # vLLM's own begin after 60 steps and after 300.
    job = {"settings": {"planning": planning}, "interval": 240, "steps": SECOND + 30}
    seen = run(some_ranks, [(1, 1, 5, "pause")], **job)
    without = run(some_ranks, [], **job)
    assert any(step >= FIRST for step in without["started"])
    assert not any(step >= FIRST for step in seen["started"])


def test_elastic_ep_with_control_is_refused(some_ranks: Ranks) -> None:
    with pytest.raises(RankFailure, match="turn off control or elastic EP"):
        some_ranks(elastic=True, settings={"control": True})


def test_two_ranks_of_which_one_has_control_do_not_start(some_ranks: Ranks) -> None:
    with pytest.raises(RankFailure, match="the 2 EP ranks do not agree. control: "):
        some_ranks(settings={"control": True}, on_rank_1={"settings": {}})
