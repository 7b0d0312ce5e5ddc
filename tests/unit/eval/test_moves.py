# SPDX-License-Identifier: Apache-2.0
"""What is counted of plans, and which count."""

import json
from pathlib import Path

import pytest

from eval.activity.counts import read_activity
from eval.activity.events import read_events
from eval.activity.moves import Moves
from eval.errors import EventsError
from tests.builders.events import finished, moment, planned, started, told, write_events
from vllm_eplb_plugin.observe.events import RearrangementFailed, Source

NEW_FIELDS = (
    "policy", "steps", "trigger", "planning_seconds", "experts_received", "bytes_received",
    "bytes_from_other_nodes", "balancedness_before", "balancedness_expected", "layers_held_back",
    "bytes_held_back",
)  # fmt: skip


def moves(folder: Path, *files: list[str], asked: tuple[float, float] = (0, 99)) -> list[Moves]:
    return read_activity(write_events(folder, *files), *asked).moves


def earlier(line: str, *fields: str) -> str:
    values = json.loads(line)
    return json.dumps({name: values[name] for name in values if name not in fields}) + "\n"


def test_moves_of_all_plans_that_were_carried_out_are_added_up(tmp_path: Path) -> None:
    lines = [
        told(1, started(1)),
        told(1, planned(1, experts=[2, 0], of_ranks=[16, 0])),
        told(2, finished(1)),
        told(3, planned(2, experts=[1, 1], of_ranks=[8, 8])),
        told(4, finished(2)),
    ]
    [found] = moves(tmp_path, lines)

    assert (found.rearrangements, found.policies) == (2, ["vllm"])
    assert (found.experts_received, found.bytes_received) == ([3, 1], [24, 8])
    assert (found.layers_changed, found.layers) == (3, 4)
    assert found.triggers == {"interval": 2}
    assert read_activity(tmp_path, 0, 99).bytes_received == 32


def test_a_plan_counts_when_its_rearrangement_finishes_while_questions_are_asked(
    tmp_path: Path,
) -> None:
    lines = [
        told(1, planned(1)),
        told(11, finished(1)),  # planned before the first question
        told(12, planned(2, of_ranks=[100, 0])),
        told(12, RearrangementFailed(*moment(2), 0.1, "RuntimeError: gone", 2)),
        told(13, planned(3, of_ranks=[100, 0])),
        told(21, finished(3)),  # after the last answer
    ]
    [found] = moves(tmp_path, lines, asked=(10, 20))

    assert (found.rearrangements, found.bytes_received) == (1, [8, 0])


def test_stages_and_a_drafter_have_moves_of_their_own(tmp_path: Path) -> None:
    second = Source(0, 2, 1)
    lines = [told(1, planned(1)), told(1, planned(1, [5], [40, 0], model_index=1))]
    lines += [told(2, finished(1)), told(2, finished(1, model_index=1))]
    stage = [told(1, planned(1, [3], [24, 0]), second), told(2, finished(1), second)]

    activity = read_activity(write_events(tmp_path, lines, stage), 0, 9)

    assert [one.experts_received for one in activity.moves] == [[1], [3], [5]]
    assert activity.bytes_received == 72


def test_events_from_before_moves_were_told_are_read(tmp_path: Path) -> None:
    lines = [earlier(told(1, planned(1)), *NEW_FIELDS), told(2, finished(1))]
    assert moves(tmp_path, lines) == []
    assert read_activity(tmp_path, 0, 9).rearrangements == 1

    # The kind of events of schema 1, too.
    first = [json.dumps({**json.loads(line), "schema": 1}) + "\n" for line in lines]
    write_events(tmp_path, first)
    assert len(list(read_events(tmp_path / "rank0.jsonl"))) == 2


@pytest.mark.parametrize("field", NEW_FIELDS)
def test_an_event_that_tells_only_a_part_is_none(tmp_path: Path, field: str) -> None:
    write_events(tmp_path, [earlier(told(1, planned(1)), field)])

    with pytest.raises(EventsError, match=f"rank0.jsonl, line 1: .*{field}: Field required"):
        list(read_events(tmp_path / "rank0.jsonl"))
