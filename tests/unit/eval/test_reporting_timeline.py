# SPDX-License-Identifier: Apache-2.0
"""What is read of rank 0's events, and which are refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.activity.placements import balancedness
from eval.activity.timeline import Timeline, read_timelines
from eval.errors import EventsError
from tests.builders.runs import STARTED, Shape, plain_balancedness, write_run


def events(folder: Path, arm: str = "async") -> list[dict[str, Any]]:
    file = folder / "arms" / arm / "events" / "rank0.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def rewrite(folder: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "arms" / "async" / "events" / "rank0.jsonl").write_text(text)


def read(folder: Path, since: float = STARTED, until: float = STARTED + 1e6) -> Timeline:
    (timeline,) = read_timelines(folder / "arms" / "async" / "events", since, until)
    return timeline


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", Shape(rearrangements=6))


def test_every_rearrangement_has_its_time_its_balancedness_and_its_cost(run: Path) -> None:
    finished = [e for e in events(run) if e["event"] == "rearrangement_finished"]
    done = read(run).rearrangements

    assert [one.number for one in done] == [1, 2, 3, 4, 5, 6]
    assert [one.time for one in done] == pytest.approx([e["time"] - STARTED for e in finished])
    assert [one.seconds for one in done] == [e["seconds"] for e in finished]
    assert [one.slots_changed for one in done] == [sum(e["slots_changed"]) for e in finished]
    assert [one.bytes_sent for one in done] == [e["bytes_sent"] for e in finished]
    plans = [one.planned for one in done]
    assert [plan and sum(plan.bytes_received) for plan in plans] == [one.bytes_sent for one in done]
    first = done[0].seconds_to_first_commit
    assert first is not None and 0 < first < done[0].seconds


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("rearrangement_finished", "seconds", math.nan),
        ("rearrangement_finished", "seconds", math.inf),
        ("rearrangement_finished", "balancedness_expected", math.nan),
        ("placement", "physical_to_logical_map", 2**40),
        ("placement", "physical_to_logical_map", 2**70),
    ],
)
def test_what_cannot_be_drawn_is_refused(run: Path, kind: str, key: str, value: float) -> None:
    lines = events(run)
    for line in lines:
        if line["event"] == kind and key == "physical_to_logical_map":
            line[key][0][0] = value
        elif line["event"] == kind:
            line[key] = value
    rewrite(run, lines)

    with pytest.raises(EventsError, match=f"rank0.jsonl(: the event '{kind}' of time|, line)"):
        read(run)


def test_dropped_events_are_of_no_model(run: Path) -> None:
    lines = events(run)
    head = ("schema", "time", "rank", "global_rank", "stage")
    dropped = {name: lines[3][name] for name in head} | {"event": "events_dropped"}
    rewrite(run, [*lines[:3], dropped | {"number": 2, "reason": "full"}, *lines[3:]])

    assert len(read(run).rearrangements) == 6


def test_the_loads_of_all_windows_are_added_and_none_gets_lost(run: Path) -> None:
    timeline = read(run)
    (first, *_), placements = timeline.rearrangements, timeline.placements
    assert placements is not None

    # Nothing had moved before the first window, and each window weighs in what was served.
    assert first.balancedness_unmoved == pytest.approx(first.balancedness_before)
    told = [e for e in events(run) if e["event"] == "placement"]
    assert placements.first.tolist() == told[0]["physical_to_logical_map"]
    assert placements.last.tolist() == told[-1]["physical_to_logical_map"]
    loads = np.array([e["logical_load"] for e in told[1:]])
    assert placements.expert_load.tolist() == loads.sum(axis=0).tolist()
    total = placements.expert_load.sum(axis=1)
    assert placements.rank_load_unmoved.sum(axis=1) == pytest.approx(total)
    assert placements.rank_load_served.sum(axis=1) == pytest.approx(total)


def test_what_nothing_moved_would_have_been_is_that_of_the_first_placement(run: Path) -> None:
    first, *later = [event for event in events(run) if event["event"] == "placement"]
    placement = np.array(first["physical_to_logical_map"])
    expected = [plain_balancedness(np.array(e["logical_load"]), placement, 2) for e in later]

    timeline = read(run)

    assert [one.balancedness_unmoved for one in timeline.rearrangements] == pytest.approx(expected)
    by_rank = timeline.placements and timeline.placements.rank_load_unmoved
    load = timeline.placements and timeline.placements.expert_load
    assert by_rank is not None and load is not None
    assert balancedness(by_rank) == pytest.approx(plain_balancedness(load, placement, 2))


def test_a_window_is_served_by_the_placement_before_its_rearrangement(run: Path) -> None:
    one_rearrangement = events(run)[: 1 + 2 + 4 * 2 + 2]
    rewrite(run, one_rearrangement)
    placements = read(run).placements
    assert placements is not None

    assert (placements.first != placements.last).any()
    assert (placements.rank_load_served == placements.rank_load_unmoved).all()


def test_before_is_the_placement_at_the_first_question(run: Path) -> None:
    done = read(run).rearrangements
    timeline = read(run, since=STARTED + done[2].time)
    told = [e for e in events(run) if e["event"] == "placement"]

    assert [one.number for one in timeline.rearrangements] == [3, 4, 5, 6]
    assert timeline.placements is not None
    assert timeline.placements.first.tolist() == told[2]["physical_to_logical_map"]


def test_what_happens_after_the_last_answer_does_not_count(run: Path) -> None:
    done = read(run).rearrangements

    timeline = read(run, until=STARTED + done[3].time)

    assert [one.number for one in timeline.rearrangements] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["some-moe", "some-draft"])
def test_a_drafter_has_a_timeline_of_its_own(run: Path, name: str) -> None:
    drafter = [{**event, "model_index": 1, "model": name} for event in events(run)]
    rewrite(run, [event for pair in zip(events(run), drafter, strict=True) for event in pair])

    both = read_timelines(run / "arms" / "async" / "events", STARTED, STARTED + 1e6)

    assert [one.model for one in both] == [(0, 0, "some-moe"), (1, 0, name)]
    plain = [[replace(done, planned=None) for done in one.rearrangements] for one in both]
    assert plain[0] == plain[1]
    assert [done.planned and done.planned.model for done in both[1].rearrangements] == [name] * 6
    assert len(both[0].rearrangements) == 6


def test_each_pipeline_stage_has_a_timeline_of_its_own(run: Path) -> None:
    folder = run / "arms" / "async" / "events"
    of_stage = {"stage": 1, "global_rank": 2}
    text = "".join(json.dumps(event | of_stage) + "\n" for event in events(run)[:-12])
    (folder / "rank2.jsonl").write_text(text)
    # Other ranks say nothing that these do not.
    (folder / "rank1.jsonl").write_text(json.dumps(events(run)[0] | {"rank": 1}) + "\nbroken\n")

    first, second = read_timelines(folder, STARTED, STARTED + 1e6)

    assert [one.model.stage for one in (first, second)] == [0, 1]
    assert [len(one.rearrangements) for one in (first, second)] == [6, 5]


def test_what_did_not_finish_is_told_with_its_reason(run: Path) -> None:
    lines = events(run)
    (start,) = (e for e in lines if e["event"] == "rearrangement_started" and e["step"] == 60)
    head = start | {"rearrangement": 7, "seconds": 0.5}
    ended = [
        head | {"event": "rearrangement_rejected", "reason": "an expert is nowhere"},
        head | {"event": "rearrangement_drained", "layers_left": 2},
    ]
    rewrite(run, [*lines, *ended])

    timeline = read(run)

    assert [(one.outcome, one.reason) for one in timeline.others] == [
        ("rejected", "an expert is nowhere"),
        ("drained", ""),
    ]
    assert len(timeline.rearrangements) == 6

    rewrite(run, ended)
    assert len(read(run).others) == 2


def test_events_without_placements_still_have_rearrangements(run: Path) -> None:
    rewrite(run, [event for event in events(run) if event["event"] != "placement"])

    timeline = read(run)

    assert len(timeline.rearrangements) == 6
    assert timeline.placements is None
    assert timeline.rearrangements[0].balancedness_unmoved is None


def test_when_the_number_of_slots_changes_loads_begin_anew(run: Path) -> None:
    lines = events(run)
    last = [event for event in lines if event["event"] == "placement"][-1]
    grown = [[*slots, *slots] for slots in last["physical_to_logical_map"]]
    rewrite(run, [*lines, {**last, "physical_to_logical_map": grown, "num_ranks": 4}])

    assert read(run).placements is None


def test_an_arm_without_events_has_no_timeline(tmp_path: Path) -> None:
    assert read_timelines(tmp_path / "nowhere", 0, 1) == []


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("rearrangement_finished", "seconds", "long"),
        ("rearrangement_finished", "slots_changed", None),
        ("placement", "physical_to_logical_map", [[0, 1], [0]]),
        ("placement", "logical_load", [[1, 2]]),
    ],
)
def test_a_field_that_is_not_as_documented_is_named(
    run: Path, kind: str, field: str, value: Any
) -> None:
    lines = events(run)
    index = max(number for number, line in enumerate(lines) if line["event"] == kind)
    lines[index][field] = value
    rewrite(run, lines)

    time = lines[index]["time"]
    with pytest.raises(EventsError, match=f"rank0.jsonl.*: the event '{kind}' of time {time}"):
        read(run)


def test_events_of_another_schema_are_refused(run: Path) -> None:
    rewrite(run, [{**event, "schema": 3} for event in events(run)])

    with pytest.raises(EventsError, match="line 1: events of schema 3, this harness reads 1 and 2"):
        read(run)
