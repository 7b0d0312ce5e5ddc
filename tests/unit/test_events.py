# SPDX-License-Identifier: Apache-2.0
"""What is written for people and programs to read."""

import dataclasses
import json
from pathlib import Path

import pytest

from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import EVENTS, LayerCommitted, WeightsChecked
from vllm_eplb_plugin.observe.identity import Source

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"


def test_every_event_is_one_line_with_its_kind_time_and_rank(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "new folder", Source(3, 7, 1))
    log.tell(lambda: [LayerCommitted("model", 0, 1, 10, "async", 2, 5)])
    log.tell(lambda: [WeightsChecked("model", 0, 2, 10, [31])])
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
    log.tell(lambda: [LayerCommitted("model", 0, 1, 10, "sync", 2, 5)])
    assert flush_all(10)
    assert not log.enabled
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", EVENTS)
def test_the_document_names_every_event_and_field(kind: type) -> None:
    section = DOCUMENT.read_text().partition(f"## `{kind.kind}`")[2].partition("\n## ")[0]
    common = DOCUMENT.read_text().partition("\n## ")[0]
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in section + common, f"{kind.kind}.{field.name}"
