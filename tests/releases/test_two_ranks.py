# SPDX-License-Identifier: Apache-2.0
"""What the overrides do beyond placing experts, on two gloo ranks of the installed vLLM."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.releases.ranks import Ranks, assert_nothing_wrong


def read_events(folder: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"rank{rank}.jsonl").read_text().splitlines()]


def read_kind(folder: Path, kind: str) -> list[dict[str, Any]]:
    events = [event for rank in range(2) for event in read_events(folder, rank)]
    return [event for event in events if event["event"] == kind]


def test_events_name_every_model_and_layer_committed(installed: Ranks, tmp_path: Path) -> None:
    reports = installed(use_async=True, models=2, events_dir=str(tmp_path))
    assert_nothing_wrong(reports)
    assert len(reports[0]["placements"]) >= 6
    events = read_events(tmp_path, 0)
    committed = [e for e in events if e["event"] == "layer_committed"]
    assert {(e["model"], e["layer"]) for e in committed} == {
        (f"model{model}", layer) for model in range(2) for layer in range(3)
    }
    assert all(e["mode"] == "async" for e in committed)
    # The served model is the first, though vLLM adds the drafter before it.
    indices = {(e["model"], e["model_index"]) for e in events}
    assert indices == {("model0", 1), ("model1", 0)}


def test_events_tell_what_moved_and_what_it_cost(installed: Ranks, tmp_path: Path) -> None:
    reports = installed(events_dir=str(tmp_path))
    events = read_events(tmp_path, 0)
    finished = [e for e in events if e["event"] == "rearrangement_finished"]
    placements = [report[0] for report in reports[0]["placements"]]
    initial = [[slot % 8 for slot in range(12)]] * 3
    for before, after, event in zip([initial, *placements], placements, finished, strict=False):
        changed = [
            sum(x != y for x, y in zip(b, a, strict=True))
            for b, a in zip(before, after, strict=True)
        ]
        assert event["slots_changed"] == changed
        received = sum(
            len(set(a[half]) - set(b[half]))
            for b, a in zip(before, after, strict=True)
            for half in (slice(0, 6), slice(6, 12))
        )
        # An expert is 6 float32 and 4 float16 numbers.
        assert event["bytes_sent"] == received * (6 * 4 + 4 * 2)
        assert event["balancedness_expected"] >= event["balancedness_before"]
    checks = [
        e
        for rank in range(2)
        for e in read_events(tmp_path, rank)
        if e["event"] == "weights_checked"
    ]
    assert len(checks) == 2 * 3 * len(finished)
    assert all(e["mismatched_slots"] == [] and e["slots"] == 6 for e in checks)
    maps = read_kind(tmp_path, "maps_checked")
    assert len(maps) == len(checks)
    assert all(e["mismatched_experts"] == [] and e["experts"] == 8 for e in maps)


@pytest.mark.parametrize("use_async", [False, True])
def test_a_full_disk_costs_events_and_nothing_else(
    use_async: bool, installed: Ranks, tmp_path: Path
) -> None:
    for rank in range(2):
        (tmp_path / f"rank{rank}.jsonl").symlink_to("/dev/full")
        (tmp_path / f"steps{rank}.jsonl").symlink_to("/dev/full")
    folder = str(tmp_path)
    reports = installed(use_async=use_async, events_dir=folder, step_times_dir=folder)
    assert_nothing_wrong(reports)
    without = installed(use_async=use_async)
    assert [one["placements"] for one in reports] == [one["placements"] for one in without]
    log = installed.log.read_text()
    assert "EPLB events are dropped" in log
    assert "No space left on device" in log


@pytest.mark.parametrize("use_async", [False, True])
def test_rank_0_tells_the_first_placement_and_every_later_one(
    use_async: bool, installed: Ranks, tmp_path: Path
) -> None:
    reports = installed(use_async=use_async, models=2, events_dir=str(tmp_path))
    told = [e for e in read_events(tmp_path, 0) if e["event"] == "placement"]
    for model in range(2):
        first, *later = [e for e in told if e["model"] == f"model{model}"]
        assert first["physical_to_logical_map"] == reports[0]["initial"][model]
        assert (first["rearrangement"], first["mode"], first["logical_load"]) == (0, None, None)
        seen = [placements[model] for placements in reports[0]["placements"]]
        assert [e["physical_to_logical_map"] for e in later[: len(seen)]] == seen
        assert [e["rearrangement"] for e in later] == list(range(1, len(later) + 1))
        # The window's four steps give one expert in turn 40 tokens a rank more than others.
        hottest = [e["logical_load"][0].index(max(e["logical_load"][0])) for e in later]
        assert hottest == [e % 8 for e in range(len(later))]
        assert all(e["num_ranks"] == 2 for e in (first, *later))
    assert all(e["event"] != "placement" for e in read_events(tmp_path, 1))


@pytest.mark.parametrize("use_async", [False, True])
class TestFault:
    """Each one does what it says, and leaves an event that says so."""

    def test_weights_that_stay_behind(
        self, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        fault = "weights_not_moved"
        reports = installed(fault=fault, use_async=use_async, events_dir=str(tmp_path))
        assert all(report["wrong_weights"] > 0 and report["wrong_maps"] == 0 for report in reports)
        wrong = [e for e in read_kind(tmp_path, "weights_checked") if e["mismatched_slots"]]
        assert {event["rank"] for event in wrong} == {0, 1}
        assert "EPLB weight check failed: layer" in installed.log.read_text()

    def test_two_swapped_experts_of_one_layer_stay_swapped(
        self, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        fault = "expert_row_swapped"
        reports = installed(fault=fault, use_async=use_async, events_dir=str(tmp_path))
        assert all(report["wrong_maps"] == 0 for report in reports)
        checks = read_kind(tmp_path, "weights_checked")
        assert {event["layer"] for event in checks if event["mismatched_slots"]} == {0}
        moved = [event for event in checks if event["layer"] == 0]
        # Both ranks check the layer at every commit, the first one included.
        commits = len(moved) // 2
        slots = [sum(len(e["mismatched_slots"]) for e in moved[n::commits]) for n in range(commits)]
        # Two at first; later as many as the two experts then have replicas.
        assert slots[0] == 2 and min(slots) == 2, slots

    def test_weights_of_one_placement_ago_are_moved(
        self, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        fault = "stale_sources"
        reports = installed(fault=fault, use_async=use_async, events_dir=str(tmp_path))
        assert all(report["wrong_weights"] > 0 and report["wrong_maps"] == 0 for report in reports)
        for rank in range(2):
            checks = [e for e in read_events(tmp_path, rank) if e["event"] == "weights_checked"]
            wrong = [bool(event["mismatched_slots"]) for event in checks]
            # Before the first rearrangement there is no other placement; then there is.
            assert not any(wrong[:3]) and any(wrong[3:6])

    def test_a_replica_that_is_left_out_moves_no_weight(
        self, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        fault = "replica_count_off_by_one"
        reports = installed(fault=fault, use_async=use_async, events_dir=str(tmp_path))
        assert all(report["wrong_weights"] == 0 and report["wrong_maps"] > 0 for report in reports)
        checks = read_kind(tmp_path, "maps_checked")
        assert all(len(e["mismatched_experts"]) == 1 and e["experts"] == 8 for e in checks)
        assert {event["rank"] for event in checks} == {0, 1}

    def test_a_forgotten_expert_is_rejected(
        self, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        fault = "invalid_placement"
        reports = installed(fault=fault, use_async=use_async, steps=60, events_dir=str(tmp_path))
        assert_nothing_wrong(reports)
        assert all(r["placements"] == [] and r["rejections"] >= 3 for r in reports)
        rejected = read_kind(tmp_path, "rearrangement_rejected")
        assert rejected and all("no slot for logical expert 0" in e["reason"] for e in rejected)

    @pytest.mark.parametrize("planning", [None, {"policy": "incremental"}])
    def test_a_plan_from_one_placement_ago_is_rejected(
        self, planning: Any, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        settings = {"planning": planning}
        job = {"use_async": use_async, "steps": 80, "rearrangements": 9, "settings": settings}
        sound = installed(**job)
        assert_nothing_wrong(sound)
        assert all(r["rejections"] == 0 and len(r["placements"]) >= 3 for r in sound)
        stale = installed(fault="stale_plan", events_dir=str(tmp_path), **job)
        assert_nothing_wrong(stale)
        assert all(report["rejections"] > 0 for report in stale)
        rejected = read_kind(tmp_path, "rearrangement_rejected")
        assert all("a second plan" in event["reason"] for event in rejected)

    def test_nothing_is_ever_rearranged(
        self, use_async: bool, installed: Ranks, tmp_path: Path
    ) -> None:
        fault = "no_rearrangement"
        reports = installed(fault=fault, use_async=use_async, steps=60, events_dir=str(tmp_path))
        assert_nothing_wrong(reports)
        assert all(report["rearrangements"] == 0 for report in reports)
        assert [event["event"] for event in read_events(tmp_path, 0)] == ["placement"]


def test_a_delay_holds_every_layer_up_and_changes_nothing(installed: Ranks, tmp_path: Path) -> None:
    job = {"use_async": True, "rearrangements": 3}
    delayed = installed(transfer_delay_ms=40, events_dir=str(tmp_path), **job)
    assert_nothing_wrong(delayed)
    assert delayed[0]["placements"] == installed(**job)[0]["placements"]
    seconds = [event["seconds"] for event in read_kind(tmp_path, "rearrangement_finished")]
    # Three layers, one after another.
    assert len(seconds) >= 6 and min(seconds) >= 3 * 0.040


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        ("drops_an_expert", ["no slot for logical expert 0"] * 2),
        ("differs_between_ranks", ["differs between ranks"] * 2),
        ("fails_on_one_rank", ["EP rank 1 rejected its policy", "RuntimeError: no plan today"]),
    ],
)
@pytest.mark.parametrize("use_async", [False, True])
def test_a_bad_placement_is_refused_on_every_rank_and_stepping_goes_on(
    policy: str, reasons: list[str], use_async: bool, installed: Ranks, tmp_path: Path
) -> None:
    reports = installed(policy=policy, use_async=use_async, steps=60, events_dir=str(tmp_path))
    assert_nothing_wrong(reports)
    for rank, (report, reason) in enumerate(zip(reports, reasons, strict=True)):
        assert report["placements"] == []
        assert report["rejections"] >= 3
        rejected = [
            e for e in read_events(tmp_path, rank) if e["event"] == "rearrangement_rejected"
        ]
        assert len(rejected) >= 2
        assert all(reason in e["reason"] for e in rejected)


@pytest.mark.parametrize(
    ("how", "use_async", "outcome", "reason"),
    [
        ("drain", True, "drained", None),
        ("skip", False, "skipped", "vLLM found too little to gain"),
        ("error", True, "failed", "RuntimeError: no transfer today"),
    ],
)
def test_what_vllm_does_not_carry_out_has_an_outcome_of_its_own(
    how: str,
    use_async: bool,
    outcome: str,
    reason: str | None,
    installed: Ranks,
    tmp_path: Path,
) -> None:
    reports = installed(
        interrupt=how, use_async=use_async, models=2, steps=60, events_dir=str(tmp_path)
    )
    assert_nothing_wrong(reports)
    for rank, report in enumerate(reports):
        assert report["outcomes"][outcome] >= 2
        events = read_events(tmp_path, rank)
        ended = [e for e in events if e["event"] == f"rearrangement_{outcome}"]
        assert reason is None or any(e["reason"].startswith(reason) for e in ended)
        started = [e for e in events if e["event"] == "rearrangement_started"]
        assert sum(report["outcomes"].values()) == len(started)
        assert report["placements"] == [] or how == "skip"


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_the_time_of_every_step_is_written_with_the_plugin_and_without(
    enabled: bool, use_async: bool, installed: Ranks, tmp_path: Path
) -> None:
    reports = installed(enabled=enabled, use_async=use_async, step_times_dir=str(tmp_path))
    # vLLM's own l2p has 1024 columns.
    assert (reports[0]["width"] == 1024) is not enabled
    for rank in range(2):
        lines = (tmp_path / f"steps{rank}.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines]
        assert all(step["seconds"] > 0 for step in steps)
        # In async mode one layer of three is committed a step, after the one that begins it.
        rearranging = sum(step["rearranging"] for step in steps)
        assert len(steps) > rearranging >= (4 if use_async else 1) * (len(reports[0]["placements"]))


def test_one_line_of_one_rank_says_what_is_on(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path / "ranks.log")
    try:
        ranks(use_async=True, models=2, events_dir=str(tmp_path))
    finally:
        ranks.stop()
    [line] = [
        line for line in ranks.log.read_text().splitlines() if "EPLB is vllm-eplb-plugin's" in line
    ]
    for part in (
        "vLLM 0.32.0",
        "async mode",
        "policy: vLLM's default, compiled",
        "commits: numba",
        "checked: placements before weights move, weights and router maps after every commit",
        f"events: to {tmp_path}",
        "switch interval: 0.5 ms",
    ):
        assert part in line


@pytest.mark.parametrize(
    ("use_async", "setting", "interval"),
    [(True, 0.25, "0.25"), (True, None, "5"), (True, 0, "5"), (False, 0.5, "5")],
)
def test_the_switch_interval_is_a_setting_of_async_mode(
    use_async: bool, setting: float | None, interval: str, installed: Ranks
) -> None:
    before = len(installed.log.read_text())
    installed(use_async=use_async, switch_interval_ms=setting, rearrangements=1)
    assert f"switch interval: {interval} ms." in installed.log.read_text()[before:]
