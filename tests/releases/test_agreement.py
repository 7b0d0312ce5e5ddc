# SPDX-License-Identifier: Apache-2.0
"""Ranks that disagree are refused by name when an `EplbState` is made, on every rank."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.releases.ranks import Ranks, assert_nothing_wrong

SHORT = {"rank_timeout_s": 0.5}
HOST = socket.gethostname()


def refusals(ranks: Ranks, **job: Any) -> list[str | None]:
    """What each rank was refused with when it made its state."""
    return [report["refused"] for report in ranks(scenario="start", **job)]


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("job", "other", "differs"),
    [
        ({}, {"settings": {"check_weights": False}}, "check_weights: true on rank 0 (H), false"),
        ({}, {"enabled": False}, "enabled: true on rank 0 (H), false"),
        ({"enabled": False}, {"enabled": True}, "enabled: false on rank 0 (H), true"),
        ({}, {"arguments": {"version": "0.0.1"}}, '(H), "0.0.1"'),
        (
            {},
            {"arguments": {"eplb_config": {"step_interval": 99}}},
            "--eplb-config step_interval: 12 on rank 0 (H), 99",
        ),
    ],
    ids=["check_weights", "disabled", "enabled", "version", "eplb_config"],
)
def test_a_difference_is_refused_on_both_ranks(
    job: dict[str, Any], other: dict[str, Any], differs: str, use_async: bool, some_ranks: Ranks
) -> None:
    told = refusals(some_ranks, use_async=use_async, on_rank_1=other, **job)
    assert told[0] is not None and told[0] == told[1]
    assert told[0].startswith("RanksDisagreeError: EPLB")
    assert ": the 2 EP ranks do not agree. " in told[0]
    assert f"{differs} on rank 1 (H). Start every node with".replace("H", HOST) in told[0]


def test_pipeline_stages_agree_each_for_itself(some_ranks: Ranks) -> None:
    stages = {"stages": True}
    other = {"arguments": {**stages, "version": "0.0.1"}}
    assert refusals(some_ranks, arguments=stages, on_rank_1=other) == [None, None]


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_rank_without_the_plugin_is_named(use_async: bool, some_ranks: Ranks) -> None:
    other = {"plugin": False}
    told = refusals(some_ranks, use_async=use_async, settings=SHORT, on_rank_1=other)
    assert told[0] is not None and told[1] is None
    assert told[0].startswith(
        f"RanksMissingError: EPLB on or off: EP rank 0 on {HOST} has waited 0.5 s for EP rank 1. "
    )
    assert "no vllm-eplb-plugin: it is not installed there" in told[0]


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_where_it_is_turned_off_a_rank_without_it_is_no_reason_to_refuse(
    use_async: bool, some_ranks: Ranks
) -> None:
    job = {"enabled": False, "settings": SHORT, "on_rank_1": {"plugin": False}}
    assert refusals(some_ranks, use_async=use_async, **job) == [None, None]
    assert "has waited 0.5 s for EP rank 1. " in some_ranks.log.read_text()


def test_what_is_turned_off_on_both_ranks_may_differ(some_ranks: Ranks) -> None:
    other = {"arguments": {"version": "0.0.1"}, "settings": {"check_weights": False}}
    assert refusals(some_ranks, enabled=False, on_rank_1=other) == [None, None]


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_difference_that_concerns_one_process_is_taken(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    own = {
        "events_dir": str(tmp_path / "events"),
        "step_times_dir": str(tmp_path / "times"),
        "switch_interval_ms": None,
        "settings": {"compiled_policy": False, "rank_timeout_s": 60},
    }
    assert_nothing_wrong(some_ranks(use_async=use_async, rearrangements=2, on_rank_1=own))
    assert [file.name for file in (tmp_path / "events").iterdir()] == ["rank1.jsonl"]
