# SPDX-License-Identifier: Apache-2.0
"""What is written for people and programs to read."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from jsonschema import Draft202012Validator

from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import (
    EVENTS,
    Event,
    EventsDropped,
    LayerCommitted,
    LoadMeasured,
    MapsChecked,
    Placement,
    RearrangementDrained,
    RearrangementFailed,
    RearrangementFinished,
    RearrangementPlanned,
    RearrangementRejected,
    RearrangementSkipped,
    RearrangementStalled,
    RearrangementStarted,
    StallBegan,
    StallEnded,
    TurnedOff,
    WeightsChecked,
)
from vllm_eplb_plugin.observe.identity import Source

REPOSITORY = Path(__file__).parents[2]
MODEL = ("model", 0)
MOMENT = (*MODEL, 1, 10, "async")


def test_every_event_is_one_line_with_its_kind_time_and_rank(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "new folder", Source(3, 7, 1))
    log.tell(lambda: [LayerCommitted(*MOMENT, 2, 5)])
    log.tell(lambda: [WeightsChecked(*MODEL, 2, 10, [31])])
    assert flush_all(10)
    lines = (tmp_path / "new folder" / "rank7.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first.pop("time") <= second.pop("time")
    assert first == {
        "schema": 2,
        "event": "layer_committed",
        "rank": 3,
        "global_rank": 7,
        "stage": 1,
        "model": "model",
        "model_index": 0,
        "rearrangement": 1,
        "step": 10,
        "mode": "async",
        "layer": 2,
        "slots_changed": 5,
    }
    assert second["mismatched_slots"] == [31]


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = EventLog(None, Source(0, 0, 0))
    log.tell(lambda: [LayerCommitted(*MOMENT, 2, 5)])
    assert flush_all(10)
    assert not log.enabled
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        yield importlib.import_module("events_document")


def test_the_document_and_the_schema_are_made_from_the_types(script: ModuleType) -> None:
    docs = REPOSITORY / "docs"
    stale = "run .venv/bin/python scripts/events_document.py"
    assert (docs / "events.md").read_text(encoding="utf-8") == script.document(), stale
    assert json.loads((docs / "events.schema.json").read_text()) == script.schema(), stale


def test_every_kind_is_told_of_in_the_order_of_the_schema(script: ModuleType) -> None:
    headings = re.findall("^##+ `(.*)`$", script.document(), flags=re.MULTILINE)
    assert headings == [kind.kind for kind in EVENTS]


ONE_OF_EACH: list[Event] = [
    RearrangementStarted(*MOMENT),
    LoadMeasured(*MOMENT, [0.8, 1.0], 0.85, [120, 80]),
    RearrangementPlanned(
        *MOMENT,
        layers_changed=2,
        seconds=0.1,
        policy="incremental",
        steps=["keep_in_place"],
        trigger="interval",
        planning_seconds=0.01,
        experts_received=[0, 5],
        bytes_received=[4096, 1024],
        bytes_from_other_nodes=[0, 1024],
        balancedness_before=0.8,
        balancedness_expected=0.99,
        layers_held_back=0,
        bytes_held_back=0,
    ),
    LayerCommitted(*MOMENT, 2, 5),
    RearrangementFinished(*MOMENT, 0.5, 0.4, 0.9, [0, 5], 1024),
    RearrangementSkipped(*MOMENT, 0.5, "nothing to gain"),
    RearrangementRejected(*MOMENT, 0.5, "a slot is empty"),
    RearrangementDrained(*MOMENT, 0.5, None),
    RearrangementFailed(*MOMENT, 0.5, "RuntimeError: no", 1),
    RearrangementStalled(*MOMENT, 0.5, "EP rank 1 stood still", None),
    StallBegan(1, "worker", "transfer", 5, 31.0),
    StallEnded(1, "process", "forward", None, 33.0),
    TurnedOff("EP rank 1: stood still"),
    Placement(*MODEL, 0, 0, None, 2, [[0, 1], [1, 0]], None),
    Placement(*MODEL, 3, 30, "sync", 2, [[0, 1], [1, 0]], [[7, 5], [0, 9]]),
    WeightsChecked(*MODEL, 1, 10, [3]),
    MapsChecked(*MODEL, 1, 16, []),
    EventsDropped(2, "No space left on device"),
]


def test_what_is_written_is_valid_by_the_schema(tmp_path: Path) -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(EVENTS)
    log = EventLog(tmp_path, Source(3, 7, 1))
    log.tell(lambda: ONE_OF_EACH)
    assert flush_all(10)
    schema = json.loads((REPOSITORY / "docs" / "events.schema.json").read_text())
    valid = Draft202012Validator(schema).is_valid

    lines = [json.loads(line) for line in (tmp_path / "rank7.jsonl").read_text().splitlines()]
    assert len(lines) == len(ONE_OF_EACH)
    for line in lines:
        assert valid(line), line
        for field in line:
            assert not valid({name: value for name, value in line.items() if name != field})
        assert not valid(line | {"time": "now"})
        assert not valid(line | {"schema": 1})
