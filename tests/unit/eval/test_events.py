# SPDX-License-Identifier: Apache-2.0
"""What is read of the events, and which lines are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.activity.counts import read_activity
from eval.activity.events import files_of_all_ranks, files_that_speak_for_all, read_events
from eval.errors import EventsError
from tests.builders.events import committed, finished, started, told, write_events
from tests.unit.test_events import ONE_OF_EACH
from vllm_eplb_plugin.observe.events import Placement, Source, WeightsChecked

CHECKED = WeightsChecked("main", 0, 0, 10, [])


def test_every_event_is_read_as_it_was_told(tmp_path: Path) -> None:
    source = Source(3, 7, 1)
    lines = [told(number, event, source) for number, event in enumerate(ONE_OF_EACH)]
    write_events(tmp_path, lines)

    read = list(read_events(tmp_path / "rank0.jsonl"))

    assert [one.event for one in read] == ONE_OF_EACH
    assert [(one.time, one.source) for one in read] == [(n, source) for n in range(len(lines))]


def test_a_last_line_cut_off_in_writing_is_left_out(tmp_path: Path) -> None:
    whole = told(1, finished(1))

    assert read_activity(write_events(tmp_path, [whole, whole[:40]]), 0, 9).rearrangements == 1


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    line = json.loads(told(1, finished(1)))
    change(line)
    return json.dumps(line) + "\n"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{cut\n", "not JSON"),
        ("[]\n", "not an event"),
        ('{"schema": 2}\n', "not an event"),
        (changed(lambda line: line.update(schema=3)), "events of schema 3, .* reads 1 and 2"),
        (changed(lambda line: line.update(event="moved")), "'moved' .*: there is no such kind"),
        (changed(lambda line: line.update(colour="red")), "it has no field 'colour'"),
        (changed(lambda line: line.pop("model_index")), "model_index: Field required"),
        (changed(lambda line: line.pop("stage")), "it has no 'stage'"),
        (changed(lambda line: line.update(time="now")), "valid number"),
        (changed(lambda line: line.update(rank=-1)), "below 0"),
        (changed(lambda line: line.update(seconds="long")), "seconds: .* valid number"),
        (changed(lambda line: line.update(slots_changed=None)), "slots_changed: .* valid list"),
        (changed(lambda line: line.update(mode="fast")), "mode: .*'sync' or 'async'"),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, broken: str, message: str) -> None:
    good = told(1, finished(1))
    write_events(tmp_path, [good, broken, good])

    with pytest.raises(EventsError, match=f"rank0.jsonl, line 2: .*{message}"):
        list(read_events(tmp_path / "rank0.jsonl"))


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_kinds_that_nobody_wants_are_passed_over_unread(
    tmp_path: Path, separators: tuple[str, str]
) -> None:
    lines = [
        json.dumps(json.loads(told(1, event)), separators=separators) + "\n"
        for event in (finished(1), CHECKED, committed(0, 3))
    ]
    lines[1] = lines[1].replace("}", "")
    write_events(tmp_path, lines)

    read = read_events(tmp_path / "rank0.jsonl", [WeightsChecked, Placement])

    assert [one.event for one in read] == [finished(1), committed(0, 3)]


def test_rank_0_of_each_stage_speaks_for_all(tmp_path: Path) -> None:
    sources = [Source(rank % 6, rank, rank // 6) for rank in range(12)]
    write_events(tmp_path, *([told(1, started(1), source)] for source in sources))
    (tmp_path / "rank12.jsonl").touch()

    assert [path.name for path in files_that_speak_for_all(tmp_path)] == [
        "rank0.jsonl",
        "rank6.jsonl",
    ]
    ranks = [path.name for path in files_of_all_ranks(tmp_path)]
    assert ranks == [f"rank{rank}.jsonl" for rank in range(13)]
