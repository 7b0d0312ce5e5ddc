# SPDX-License-Identifier: Apache-2.0
"""Files that earlier releases of the plugin wrote, `events_of_schema_1` and docs/evidence."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eval.activity.counts import read_activity
from eval.activity.events import read_events
from eval.activity.timeline import read_timelines
from eval.activity.totals import Activity
from eval.errors import EventsError
from eval.results.schema import Result
from tests.builders.harness import REPOSITORY
from vllm_eplb_plugin.observe.events import (
    EventsDropped,
    LayerCommitted,
    RearrangementEnded,
    RearrangementFailed,
    RearrangementFinished,
    RearrangementRejected,
    RearrangementSkipped,
    RearrangementStarted,
    Source,
)

KEPT = Path(__file__).parent / "events_of_schema_1"
EVIDENCE = sorted((REPOSITORY / "docs" / "evidence").glob("*/*.jsonl"))
MOMENT = ("main", 0, 1, 10, "async")


def line(event: str, time: float, model: str = "main", rank: int = 0, **fields: Any) -> str:
    head = {"schema": 1, "event": event, "time": time, "rank": rank, "model": model}
    return json.dumps(head | fields) + "\n"


def started(time: float, number: int, model: str = "main", rank: int = 0) -> str:
    head = {"rearrangement": number, "step": 10, "mode": "async"}
    return line("rearrangement_started", time, model, rank, **head)


def finished(time: float, number: int, slots: list[int], model: str = "main") -> str:
    return line(
        "rearrangement_finished", time, model, rearrangement=number, step=12, mode="async",
        balancedness_before=0.5, balancedness_expected=1.0, slots_changed=slots, bytes_sent=8,
        seconds=0.25,
    )  # fmt: skip


def read(folder: Path, *lines: str) -> list[Any]:
    (folder / "rank0.jsonl").write_text("".join(lines))
    return [told.event for told in read_events(folder / "rank0.jsonl")]


def evidence(file: Path, folder: Path) -> Activity:
    shutil.copy(file, folder / "rank0.jsonl")
    return read_activity(folder, 0, 1e10)


def test_a_rejected_placement_is_one_outcome(tmp_path: Path) -> None:
    counted = evidence(KEPT / "rejected.jsonl", tmp_path)

    assert counted.rearrangements == 0
    assert counted.placements_rejected == counted.rearrangements_started == 2
    assert counted.layers_committed == 0
    assert counted.weight_checks > 0
    events = [told.event for told in read_events(tmp_path / "rank0.jsonl")]
    ended = [event for event in events if isinstance(event, RearrangementEnded)]
    assert {type(event) for event in ended} == {RearrangementRejected}
    assert all("no slot for logical expert 0" in event.reason for event in ended)
    assert all(0 < event.seconds < 10 for event in ended)


def test_models_are_numbered_by_their_names(tmp_path: Path) -> None:
    counted = evidence(KEPT / "two_models.jsonl", tmp_path)

    assert [(one.model, one.model_index) for one in counted.models] == [
        ("model0", 0),
        ("model1", 1),
    ]
    lines = [json.loads(one) for one in (tmp_path / "rank0.jsonl").read_text().splitlines()]
    done = Counter(one["model"] for one in lines if one["event"] == "rearrangement_finished")
    assert {one.model: one.finished for one in counted.models} == done
    assert len(read_timelines(tmp_path, 0, 1e10)) == 2


@pytest.mark.parametrize("file", EVIDENCE, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_files_that_are_kept_say_what_they_said(file: Path, tmp_path: Path) -> None:
    counted = evidence(file, tmp_path)
    lines = [json.loads(one) for one in file.read_text().splitlines()]

    def of(kind: str) -> list[dict[str, Any]]:
        return [one for one in lines if one["event"] == kind]

    assert counted.rearrangements == len(of("rearrangement_finished")) == 3
    assert counted.other_outcomes() == ""
    assert counted.weight_checks == sum(one["slots"] for one in of("weights_checked"))
    slots = [0] * 5
    for one in of("layer_committed"):
        slots[one["layer"]] += one["slots_changed"]
    assert counted.slots_changed == slots
    told = list(read_events(tmp_path / "rank0.jsonl"))
    assert {one.source for one in told} == {Source(0, 0, 0)}
    (timeline,) = read_timelines(tmp_path, 0, 1e10)
    assert timeline.placements is not None


def test_results_that_are_kept_are_read() -> None:
    results = sorted((REPOSITORY / "docs" / "evidence").glob("*/result.json"))
    assert results
    read = [(file.parent.name, Result.model_validate_json(file.read_text())) for file in results]
    others = {name: one.reasons for name, one in read if one.verdict != "passed"}
    assert others == {"one-gpu-gsm-mid-0.33.0-fp8": ["noise_floor: no arm repeats arm off"]}


def test_what_changed_no_slot_was_skipped(tmp_path: Path) -> None:
    events = read(tmp_path, started(1, 1), finished(2, 1, [0, 0]), started(3, 2))

    moment = ("main", 0, 1, 12, "async")
    assert events[1] == RearrangementSkipped(*moment, 0.25, "it changed no slot")
    assert [type(event) for event in events[2:]] == [RearrangementStarted]


def test_a_layer_that_stayed_was_not_committed(tmp_path: Path) -> None:
    head = {"rearrangement": 1, "step": 10, "mode": "async"}
    events = read(
        tmp_path,
        line("layer_committed", 1, layer=0, slots_changed=0, **head),
        line("layer_committed", 1, layer=1, slots_changed=2, **head),
    )
    assert events == [LayerCommitted(*MOMENT, 1, 2)]


def test_what_never_finished_although_a_later_one_started_has_failed(tmp_path: Path) -> None:
    events = read(tmp_path, started(1, 1), started(3, 2), finished(4, 2, [1]))

    reason = "it never finished although a later one started"
    assert events[1] == RearrangementFailed(*MOMENT, 2, reason, None)
    assert [type(event) for event in events[2:]] == [RearrangementStarted, RearrangementFinished]
    counted = read_activity(tmp_path, 0, 9)
    assert (counted.failed, counted.under_way_seconds) == (1, None)
    # Whenever it happened.
    assert read_activity(tmp_path, 3.5, 9).failed == 1


def test_models_of_one_rearrangement_do_not_give_each_other_up(tmp_path: Path) -> None:
    both = started(1, 1) + started(1, 1, model="draft")
    ended = finished(2, 1, [1]) + finished(2, 1, [0], model="draft")

    counted = read_evidence_of(tmp_path, both, ended)
    assert (counted.failed, counted.rearrangements, counted.skipped) == (0, 1, 1)


def read_evidence_of(folder: Path, *lines: str) -> Activity:
    read(folder, *lines)
    return read_activity(folder, 0, 9)


def test_dropped_events_are_of_no_model(tmp_path: Path) -> None:
    head = {"schema": 1, "event": "events_dropped", "time": 1.5, "rank": 0}
    dropped = json.dumps(head | {"number": 2, "reason": "full"}) + "\n"

    assert read(tmp_path, dropped) == [EventsDropped(2, "full")]


@pytest.mark.parametrize("field", ["model", "rearrangement", "slots_changed"])
def test_a_line_that_lacks_a_field_is_named(tmp_path: Path, field: str) -> None:
    broken = json.loads(finished(2, 1, [0]))
    del broken[field]

    with pytest.raises(EventsError, match=f"rank0.jsonl, line 2: .* it has no '{field}'"):
        read(tmp_path, started(1, 1), json.dumps(broken) + "\n")
