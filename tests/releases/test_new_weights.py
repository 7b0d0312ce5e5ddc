# SPDX-License-Identifier: Apache-2.0
"""Weights that are replaced after experts have moved, and sleep, on two ranks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.releases.conftest import fetch
from tests.releases.ranks import Ranks, Reports, assert_nothing_wrong
from vllm_eplb_plugin.engine.weight_updates import OVERRIDES
from vllm_eplb_plugin.overrides.override import select
from vllm_eplb_plugin.releases import Release

WAYS = ("reload_weights", "update_weights", "load_weights", "buckets", "save", "sleep_2", "discard")
SYNC_AND_ASYNC = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


def replace_weights(ranks: Ranks, way: str, use_async: bool, **job: Any) -> Reports:
    arguments = {"way": way, **job.pop("arguments", {})}
    return ranks(
        scenario="new_weights",
        arguments=arguments,
        models=2,
        use_async=use_async,
        rearrangements=10,
        **job,
    )


def assert_put_back(reports: Reports) -> None:
    for report in reports:
        assert report["lost"] == []
        # As after loading: a quarter of the twelve steps is left, and no token is counted.
        assert report["windows"] == [[9, 0]] * 3
        assert report["after"] == [[report["first"]] * 2] * 3
        assert len(report["placements"]) >= 10


def warnings_in(ranks: Ranks, since: int) -> list[str]:
    words = ("check failed", "have changed in place", "weight check of")
    return [
        line for line in ranks.log.read_text()[since:].splitlines() if any(w in line for w in words)
    ]


@SYNC_AND_ASYNC
@pytest.mark.parametrize("way", WAYS)
def test_every_slot_is_right_after_weights_were_replaced_and_experts_moved_on(
    way: str, use_async: bool, some_ranks: Ranks, some_release: Release
) -> None:
    if way == "discard" and some_release.version != "0.33.0":
        pytest.skip("vLLM has it from 0.31 on")
    since = len(some_ranks.log.read_text())
    reports = replace_weights(some_ranks, way, use_async)
    assert_nothing_wrong(reports)
    assert_put_back(reports)
    assert warnings_in(some_ranks, since) == []


@pytest.mark.parametrize("way", WAYS)
def test_vllm_itself_leaves_wrong_weights_or_an_unreadable_map(
    way: str, some_ranks: Ranks, some_release: Release
) -> None:
    if way == "discard" and some_release.version != "0.33.0":
        pytest.skip("vLLM has it from 0.31 on")
    reports = replace_weights(some_ranks, way, False, plugin=False, steps=60)
    assert all(report["after"][0] != [report["first"]] * 2 for report in reports)
    assert way == "save" or all(report["wrong_weights"] for report in reports)


@pytest.mark.parametrize("way", ["reload_weights", "buckets", "save", "sleep_1", "sleep_2"])
def test_an_async_rearrangement_that_is_under_way_is_carried_to_its_end(
    way: str, some_ranks: Ranks, tmp_path: Path
) -> None:
    since = len(some_ranks.log.read_text())
    reports = replace_weights(
        some_ranks, way, True, arguments={"amid": True}, events_dir=str(tmp_path)
    )
    assert_nothing_wrong(reports)
    assert all(len(report["after"]) == 3 for report in reports)
    if way != "sleep_1":  # which moves nothing
        assert_put_back(reports)
    assert all(set(report["outcomes"]) <= {"finished", "skipped"} for report in reports)
    assert warnings_in(some_ranks, since) == []
    put_back = [e for e in read_events(tmp_path) if e["event"] == "rearrangement_started"]
    assert sum(event["mode"] == "sync" for event in put_back) == (0 if "sleep" in way else 6)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("second_rank", ["late", "absent"])
def test_it_is_refused_on_every_rank_that_comes_and_works_when_all_come(
    second_rank: str, use_async: bool, some_ranks: Ranks
) -> None:
    reports = replace_weights(
        some_ranks,
        "reload_weights",
        use_async,
        arguments={"second_rank": second_rank},
        settings={"rank_timeout_s": 1.0},
    )
    assert_nothing_wrong(reports)
    assert_put_back(reports)
    asked = [report["refused"] for report in reports]
    assert [len(refused) for refused in asked] == [1, second_rank == "late"]
    for [message] in filter(None, asked):
        assert message.startswith("WeightsRefusedError: reload_weights is refused, and serving")
        assert "EP rank 0" in message and "has waited 1 s for EP rank 1" in message
        assert "Pause generation on all engines" in message


@SYNC_AND_ASYNC
def test_an_update_that_nobody_can_notice_is_told_once_and_is_no_mismatch(
    use_async: bool, some_ranks: Ranks
) -> None:
    since = len(some_ranks.log.read_text())
    reports = replace_weights(some_ranks, "in_place", use_async)
    assert_nothing_wrong(reports)
    lines = warnings_in(some_ranks, since)
    assert len(lines) == 2, lines  # one for each model
    assert all("have changed in place" in line for line in lines)


def test_experts_go_back_on_rocm_though_nothing_is_gained(some_ranks: Ranks) -> None:
    reports = replace_weights(some_ranks, "reload_weights", False, arguments={"rocm": True})
    assert_nothing_wrong(reports)
    assert_put_back(reports)


def read_events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rank0.jsonl").open()]


@pytest.mark.every_release
def test_every_runner_that_reloads_weights_puts_experts_back_first(release: Release) -> None:
    overridden = {one.module: one for one in select(OVERRIDES, release.version)}
    for module in ("vllm.v1.worker.gpu_model_runner", "vllm.v1.worker.gpu.model_runner"):
        source = fetch(release) / f"{module.replace('.', '/')}.py"
        if "    def reload_weights(" in source.read_text():
            assert overridden[module].target == f"{module}:GPUModelRunner.reload_weights"
