# SPDX-License-Identifier: Apache-2.0
"""What the setting `planning` does on two gloo ranks of some releases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.releases.ranks import RankFailure, Ranks, assert_nothing_wrong

INCREMENTAL = {"planning": {"policy": "incremental"}}
WARM = [30, 20, 10, 10, 10, 10, 10, 10]
OTHER = [10, 10, 10, 10, 10, 10, 20, 30]
NEVER = 10_000


def run(ranks: Ranks, folder: Path, loads: list[list[int]], **job: Any) -> list[dict[str, Any]]:
    """What ranks told of steps with these loads."""
    numbers = {"window": 12, "interval": 12, "dummies": 3, "put_back": 0}
    arguments = {"loads": loads} | {name: job.pop(name, numbers[name]) for name in numbers}
    reports = ranks(scenario="planned", arguments=arguments, events_dir=str(folder), **job)
    assert_nothing_wrong(reports)
    assert reports[0]["placements"] == reports[1]["placements"]
    files = [folder / f"rank{rank}.jsonl" for rank in range(2)]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def of_kind(events: list[dict[str, Any]], kind: str, rank: int = 0) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind and event["rank"] == rank]


@pytest.mark.parametrize("use_async", [False, True])
def test_an_incremental_plan_moves_fewer_experts_and_tells_what_it_moved(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    loads = [WARM] * 60 + [OTHER] * 60
    sent = {}
    for name, settings in (("default", {}), ("incremental", INCREMENTAL)):
        events = run(some_ranks, tmp_path / name, loads, use_async=use_async, settings=settings)
        finished = of_kind(events, "rearrangement_finished")
        sent[name] = sum(event["bytes_sent"] for event in finished)
        assert finished
    assert 0 < sent["incremental"] < sent["default"]
    planned = of_kind(events, "rearrangement_planned")
    assert {event["policy"] for event in planned} == {"incremental"}
    assert {event["trigger"] for event in planned} == {"interval"}
    for plan, end in zip(planned, finished, strict=True):
        assert sum(plan["bytes_received"]) == end["bytes_sent"]
        assert sum(plan["experts_received"]) * (6 * 4 + 4 * 2) == end["bytes_sent"]
        assert plan["balancedness_expected"] > plan["balancedness_before"]
        assert plan["bytes_from_other_nodes"] == [0, 0]
        assert (plan["layers_held_back"], plan["bytes_held_back"]) == (0, 0)
    # The load is planned from once, and then nothing is to gain.
    assert len(of_kind(events, "rearrangement_skipped")) >= 6


def test_what_limits_hold_back_is_told(some_ranks: Ranks, tmp_path: Path) -> None:
    planning = {"policy": "incremental", "limits": {"max_layers": 1}}
    events = run(some_ranks, tmp_path, [OTHER] * 50, settings={"planning": planning})
    planned = of_kind(events, "rearrangement_planned")
    assert [event["layers_changed"] for event in planned] == [1, 1, 1]
    assert [event["layers_held_back"] for event in planned] == [2, 1, 0]
    assert [event["bytes_held_back"] > 0 for event in planned] == [True, True, False]


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("dummies", [3, NEVER])
def test_a_load_belongs_to_the_expert_that_caused_it(
    use_async: bool, dummies: int, some_ranks: Ranks, tmp_path: Path
) -> None:
    wrong = wrong_shares(some_ranks, tmp_path, dummies, use_async, {"policy": "default"})
    assert wrong == [0.0] * len(wrong)


def test_vllm_credits_other_experts_with_what_came_before_a_commit(
    some_ranks: Ranks, tmp_path: Path
) -> None:
    wrong = wrong_shares(some_ranks, tmp_path / "async", NEVER, True, None)
    # Right until experts have moved, and where all of a window was counted after that.
    assert wrong[0] == 0.0 and max(wrong) > 0.03
    wrong = wrong_shares(some_ranks, tmp_path / "sync", NEVER, False, None)
    assert wrong == [0.0] * len(wrong)


def wrong_shares(
    ranks: Ranks, folder: Path, dummies: int, use_async: bool, planning: dict[str, str] | None
) -> list[float]:
    """Of each plan, the part of its load that is not where it was caused; rank 1's dummies are
    no cause."""
    generator = np.random.Generator(np.random.PCG64(1))
    loads = generator.integers(0, 50, (60, 8))
    job = {"use_async": use_async, "models": 2, "settings": {"planning": planning}}
    numbers = {"window": 8, "interval": 8, "dummies": dummies}
    events = run(ranks, folder, loads.tolist(), **job, **numbers)
    started = {e["rearrangement"]: e["step"] for e in of_kind(events, "rearrangement_started")}
    shares = []
    for placed in of_kind(events, "placement"):
        if placed["mode"]:
            start = started[placed["rearrangement"]]
            steps = np.arange(max(1, start - 7), start + 1)
            counted = 1 + (steps % dummies != 0)
            true = (loads[steps - 1] * counted[:, None]).sum(axis=0)
            difference = np.abs(np.array(placed["logical_load"]) - true)
            shares.append(float(difference.sum(axis=1).max() / 2 / true.sum()))
    assert len(shares) >= 8
    return shares


def test_after_experts_went_back_loads_are_those_of_steps_since_then(
    some_ranks: Ranks, tmp_path: Path
) -> None:
    """An async rearrangement is under way then: steps that carry it to its end serve nobody."""
    loads = np.random.Generator(np.random.PCG64(2)).integers(0, 50, (60, 8))
    job: dict[str, Any] = {"use_async": True, "settings": {"planning": {"policy": "default"}}}
    job["transfer_delay_ms"] = 20  # many of them
    numbers = {"window": 8, "interval": 16, "dummies": NEVER, "put_back": 5}
    events = run(some_ranks, tmp_path, loads.tolist(), **job, **numbers)
    started = {e["rearrangement"]: e for e in of_kind(events, "rearrangement_started")}
    assert [e["step"] for e in started.values()][:3] == [4, 5, 9]
    for placed in of_kind(events, "placement"):
        if placed["mode"] == "async" and placed["rearrangement"] > 2:
            end = started[placed["rearrangement"]]["step"]
            true = 2 * loads[max(5, end - 8) : end].sum(axis=0)
            assert placed["logical_load"] == [true.tolist()] * 3


@pytest.mark.parametrize("use_async", [False, True])
def test_another_load_is_planned_for_at_once(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    trigger = {"changed": 0.15, "check_steps": 5, "min_steps": 40}
    planning = {"policy": "incremental", "trigger": trigger}
    loads = [OTHER] * 40 + [WARM] * 40
    job = {"use_async": use_async, "settings": {"planning": planning}, "interval": 40}
    events = run(some_ranks, tmp_path, loads, window=40, **job)
    for rank in range(2):
        planned = of_kind(events, "rearrangement_planned", rank)
        assert [event["trigger"] for event in planned] == ["interval", "changed_load"]
        # The look at steps 41 to 45 is read four steps later.
        started = of_kind(events, "rearrangement_started", rank)
        assert [event["step"] for event in started] == [10, 49]
    last = of_kind(events, "placement")[-1]
    # Of the new load alone.
    assert np.array(last["logical_load"][0]).argmax() == 0
    assert planned[1]["balancedness_expected"] > 0.95


def test_it_plans_when_balance_is_lost_and_not_at_an_interval_where_it_is_not(
    some_ranks: Ranks, tmp_path: Path
) -> None:
    trigger = {"below": 0.9, "check_steps": 5, "min_steps": 10}
    planning = {"policy": "incremental", "trigger": trigger}
    even = [10] * 8
    loads = [even] * 60 + [[50, 50, 10, 10, 10, 10, 10, 10]] * 60
    job = {"settings": {"planning": planning}, "redundant": 0, "interval": 20, "window": 10}
    events = run(some_ranks, tmp_path, loads, **job)
    started = of_kind(events, "rearrangement_started")
    planned = of_kind(events, "rearrangement_planned")
    # vLLM's first interval is a quarter of one, before any look.
    assert [event["step"] for event in started] == [5, 69]
    assert [(event["step"], event["trigger"]) for event in planned] == [(69, "balancedness")]


def test_two_ranks_with_other_plans_do_not_start(some_ranks: Ranks, tmp_path: Path) -> None:
    other = {"settings": {"planning": {"policy": {"incremental": {"target": 0.5}}}}}
    with pytest.raises(RankFailure, match="the 2 EP ranks do not agree. planning: "):
        run(some_ranks, tmp_path, [WARM], settings=INCREMENTAL, on_rank_1=other)
