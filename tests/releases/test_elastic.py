# SPDX-License-Identifier: Apache-2.0
"""The rank that elastic EP adds has the settings of the others, or is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from tests.releases.ranks import Ranks, Reports

GROWN = {"scenario": "growing", "elastic": True, "redundant": 8}


def grow(ranks: Ranks, **job: Any) -> Reports:
    return ranks(**GROWN, **job)


@pytest.fixture(params=["v1", "v2"])
def runner(request: pytest.FixtureRequest, some_ranks: Ranks) -> str:
    """Each model runner, where it knows EPLB."""
    runner: str = request.param
    if runner == "v2" and some_ranks.examined["release"] == "0.18.0":
        pytest.skip("model runner V2 of vLLM 0.18 knows no EPLB")
    return runner


def test_a_new_rank_writes_events_where_the_others_do(
    runner: str, some_ranks: Ranks, tmp_path: Path
) -> None:
    reports = grow(some_ranks, runner=runner, events_dir=str(tmp_path))
    for report in reports:
        assert report["refused"] is None and report["overridden"] and report["met"]
        assert report["wrong_weights"] == 0
        assert all(-1 not in layer for layer in report["placement"])
    assert {file.name for file in tmp_path.iterdir()} == {"rank0.jsonl", "rank1.jsonl"}


def test_where_it_is_turned_off_a_new_rank_is_vllm_s_own_too(
    runner: str, some_ranks: Ranks
) -> None:
    reports = grow(some_ranks, runner=runner, enabled=False)
    for report in reports:
        assert report["refused"] is None and not report["overridden"] and report["met"]
        assert report["wrong_weights"] == 0
    assert reports[0]["placement"] == grow(some_ranks, runner=runner, plugin=False)[0]["placement"]


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"enabled": False}, "enabled: true on rank 0"),
        ({"arguments": {"version": "0.0.1"}}, 'vllm-eplb-plugin: "'),
    ],
    ids=["disabled", "version"],
)
def test_a_new_rank_that_differs_is_refused_before_experts_move(
    other: dict[str, Any], differs: str, runner: str, some_ranks: Ranks
) -> None:
    told = [report["refused"] for report in grow(some_ranks, runner=runner, on_rank_1=other)]
    assert told[0] is not None and told[0] == told[1]
    assert f"the 2 EP ranks do not agree. {differs}" in told[0]


def test_a_new_rank_without_the_plugin_is_named(some_ranks: Ranks) -> None:
    other = {"plugin": False}
    reports = grow(some_ranks, settings={"rank_timeout_s": 0.5}, on_rank_1=other)
    assert "has waited 0.5 s for EP rank 1. " in reports[0]["refused"]
