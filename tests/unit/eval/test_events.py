# SPDX-License-Identifier: Apache-2.0
"""What is counted of the events, and which files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EventsError
from eval.events import Evidence, read_events, read_evidence


def line(event: str, time: float, rank: int = 0, model: str = "main", **fields: Any) -> str:
    head = {"schema": 1, "event": event, "time": time, "rank": rank, "model": model}
    return json.dumps(head | fields) + "\n"


def committed(time: float, layer: int, slots: int, rank: int = 0, model: str = "main") -> str:
    return line(
        "layer_committed", time, rank, model,
        rearrangement=1, step=10, mode="sync", layer=layer, slots_changed=slots,
    )  # fmt: skip


def finished(
    time: float, rearrangement: int, before: float, slots: list[int], rank: int = 0
) -> str:
    return line(
        "rearrangement_finished", time, rank,
        rearrangement=rearrangement, step=10, mode="async", balancedness_before=before,
        balancedness_expected=1.0, slots_changed=slots, bytes_sent=8, seconds=0.1,
    )  # fmt: skip


def checked(time: float, rank: int, mismatched: list[int]) -> str:
    return line("weights_checked", time, rank, layer=0, slots=10, mismatched_slots=mismatched)


def write(folder: Path, *ranks: str) -> Path:
    for rank, text in enumerate(ranks):
        (folder / f"rank{rank}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_only_what_happened_between_the_two_times_counts(tmp_path: Path) -> None:
    lines = "".join(finished(time, int(time), 0.5, [1]) for time in (9, 10, 15, 20, 21))

    assert read_evidence(write(tmp_path, lines), 10, 20).rearrangements == 3


def test_placements_are_counted_once_and_weight_checks_on_every_rank(tmp_path: Path) -> None:
    ranks = [
        finished(1, 1, 0.5, [3, 0], rank)
        + committed(1, 0, 3, rank)
        + checked(1, rank, [rank] * rank)
        + line("placement_rejected", 1, rank, rearrangement=2, step=9, mode="sync", reason="no")
        for rank in range(3)
    ]
    evidence = read_evidence(write(tmp_path, *ranks), 0, 2)

    assert evidence.rearrangements == 1
    assert evidence.layers_committed == 1
    assert evidence.placements_rejected == 1
    assert evidence.weight_checks == 30
    assert evidence.weight_mismatches == 3
    assert evidence.modes == ["async"]


def test_slots_changed_are_summed_for_each_layer(tmp_path: Path) -> None:
    lines = committed(1, 0, 3) + committed(1, 1, 4) + committed(2, 0, 5)

    assert read_evidence(write(tmp_path, lines), 0, 9).slots_changed == [8, 4]


def test_a_layer_that_never_changed_is_a_zero(tmp_path: Path) -> None:
    lines = committed(1, 0, 3) + finished(1, 1, 0.5, [3, 0, 0])

    assert read_evidence(write(tmp_path, lines), 0, 9).slots_changed == [3, 0, 0]


def test_the_layers_of_a_drafter_are_not_those_of_its_target(tmp_path: Path) -> None:
    lines = committed(1, 1, 3) + committed(1, 0, 4, model="drafter")

    assert read_evidence(write(tmp_path, lines), 0, 9).slots_changed == [0, 3, 4]


def test_balancedness_is_the_mean_over_rearrangements(tmp_path: Path) -> None:
    lines = finished(1, 1, 0.4, [1]) + finished(2, 2, 0.6, [1])

    assert read_evidence(write(tmp_path, lines), 0, 9).balancedness_before == pytest.approx(0.5)


def test_no_events_are_no_evidence(tmp_path: Path) -> None:
    assert read_evidence(tmp_path / "nowhere", 0, 9) == Evidence()


def test_a_last_line_cut_off_in_writing_is_left_out(tmp_path: Path) -> None:
    whole = finished(1, 1, 0.5, [1])

    assert read_evidence(write(tmp_path, whole + whole[:40]), 0, 9).rearrangements == 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{cut\n", "rank0.jsonl, line 2: not JSON"),
        ("[]\n", "rank0.jsonl, line 2: not an event"),
        ('{"schema": 1}\n', "rank0.jsonl, line 2: not an event"),
        (finished(1, 1, 0.5, [1]).replace('"schema": 1', '"schema": 2'), "line 2: .* schema 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: str, message: str) -> None:
    good = finished(1, 1, 0.5, [1])

    with pytest.raises(EventsError, match=message):
        read_evidence(write(tmp_path, good + broken + good), 0, 9)


def started(time: float, rearrangement: int, rank: int = 0, model: str = "main") -> str:
    return line(
        "rearrangement_started", time, rank, model,
        rearrangement=rearrangement, step=10, mode="async",
    )  # fmt: skip


def test_a_rearrangement_that_ends_is_neither_abandoned_nor_under_way(tmp_path: Path) -> None:
    # It ends after the last answer: it was late, but does not hang.
    lines = started(1, 1) + finished(2, 1, 0.5, [1]) + started(8, 2) + finished(11, 2, 0.5, [1])
    evidence = read_evidence(write(tmp_path, lines), 0, 9)

    assert (evidence.rearrangements_started, evidence.rearrangements) == (2, 1)
    assert (evidence.abandoned, evidence.under_way_seconds) == (0, None)
    assert evidence.usual_seconds == pytest.approx(0.1)


def test_one_that_never_ends_is_under_way_until_the_last_answer(tmp_path: Path) -> None:
    lines = started(1, 1) + finished(2, 1, 0.5, [1]) + started(4, 2)

    assert read_evidence(write(tmp_path, lines), 0, 9).under_way_seconds == 5


def test_one_that_hangs_on_one_rank_or_for_one_model_only_is_found(tmp_path: Path) -> None:
    good = started(1, 1) + finished(2, 1, 0.5, [1])
    ranks = [good, started(1, 1, rank=1)]
    assert read_evidence(write(tmp_path, *ranks), 0, 9).under_way_seconds == 8

    ranks = [good + started(3, 1, model="drafter"), good]
    assert read_evidence(write(tmp_path, *ranks), 0, 9).under_way_seconds == 6


def test_one_that_hung_before_the_questions_waits_since_the_first(tmp_path: Path) -> None:
    assert read_evidence(write(tmp_path, started(1, 1)), 5, 9).under_way_seconds == 4


def test_one_that_starts_after_the_last_answer_is_left_out(tmp_path: Path) -> None:
    assert read_evidence(write(tmp_path, started(9.5, 1)), 5, 9).under_way_seconds is None


def test_a_later_start_tells_that_the_earlier_one_was_abandoned(tmp_path: Path) -> None:
    lines = started(1, 1) + started(3, 2) + finished(4, 2, 0.5, [1])
    evidence = read_evidence(write(tmp_path, lines), 0, 9)

    assert (evidence.abandoned, evidence.under_way_seconds) == (1, None)


def test_maps_are_checked_on_every_rank(tmp_path: Path) -> None:
    ranks = [
        line("maps_checked", 1, rank, layer=0, experts=16, mismatched_experts=[3] * rank)
        for rank in range(2)
    ]
    evidence = read_evidence(write(tmp_path, *ranks), 0, 9)

    assert (evidence.map_checks, evidence.map_mismatches) == (32, 1)


def test_dropped_events_are_counted_on_every_rank(tmp_path: Path) -> None:
    ranks = [
        line("events_dropped", 1, rank, number=3, reason="No space left on device")
        for rank in range(2)
    ]
    assert read_evidence(write(tmp_path, *ranks), 0, 9).events_dropped == 6


def test_kinds_that_nobody_wants_are_passed_over_unread(tmp_path: Path) -> None:
    lines = finished(1, 1, 0.5, [1]) + checked(1, 0, []).replace("}", "") + committed(1, 0, 3)

    events = read_events(write(tmp_path, lines) / "rank0.jsonl", ["weights_checked"])

    assert [event["event"] for event in events] == ["rearrangement_finished", "layer_committed"]
