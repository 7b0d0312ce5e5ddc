# SPDX-License-Identifier: Apache-2.0
"""What is told of several models is written by a thread of its own, and nobody waits for a disk."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.recordings import in_force, served, window
from vllm_eplb_plugin.observe.delivery import Delivery
from vllm_eplb_plugin.recording import writer as writer_module
from vllm_eplb_plugin.recording.reader import RecordingError, read_recordings
from vllm_eplb_plugin.recording.recording_sink import Dropped, RecordingSink


def tell(sink: RecordingSink, *told: object, model_index: int = 0) -> None:
    for what in told:
        for _ in sink.write({"model_index": model_index, "what": what}):
            pass


@pytest.fixture
def sink(tmp_path: Path) -> RecordingSink:
    made = RecordingSink(tmp_path, 10**9, 4)
    tell(made, served(), in_force(0))
    return made


def test_models_are_written_when_the_server_ends(sink: RecordingSink, tmp_path: Path) -> None:
    tell(sink, served(model_index=1), in_force(0), window(20), model_index=1)
    tell(sink, window(10))
    with pytest.raises(RecordingError, match="no model<N>"):
        read_recordings(tmp_path)
    sink.close()
    target, drafter = read_recordings(tmp_path)
    assert [one.step for one in target.windows] == [10]
    assert [one.step for one in drafter.windows] == [20]


def test_a_start_that_planned_nothing_leaves_nothing(sink: RecordingSink, tmp_path: Path) -> None:
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_each_start_has_a_folder_of_its_own_in_the_order_of_time(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        sink = RecordingSink(tmp_path, 10**9, 0)
        tell(sink, served(), window(step))
        sink.close()
    assert [one.windows[0].step for one in read_recordings(tmp_path)] == [1, 2, 3]


def test_a_folder_that_cannot_be_made_ends_the_server_before_it_serves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        RecordingSink(tmp_path / "file", 10**9, 0)


def test_a_full_disk_is_told_once_and_windows_are_counted(
    sink: RecordingSink,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(writer_module, "MOST_WAITING", 2)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "vllm.eplb_plugin"):
        patch.setattr(writer_module, "save_file", full)
        tell(sink, *(window(step) for step in range(1, 7)))
        assert caplog.text.count("EPLB load windows are lost") == 1
        assert "No space left on device. Serving goes on." in caplog.text
    tell(sink, Dropped(3), window(7), window(8))
    [recording] = read_recordings(tmp_path)
    assert [one.step for one in recording.windows] == [7, 8]
    assert "9 windows could not be written" in recording.warnings[0]


def test_what_waits_is_written_when_nothing_is_told_any_more(
    sink: RecordingSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MOST_SECONDS", 0.01)
    delivery = Delivery(sink, lambda number, reason: {"what": Dropped(number)}, idle=sink.idle)

    def told() -> Iterator[dict[str, object]]:
        yield {"model_index": 0, "what": window(10)}

    delivery.tell(told)
    limit = time.monotonic() + 10
    while not list(tmp_path.rglob("*.safetensors")) and time.monotonic() < limit:
        time.sleep(0.01)
    assert len(read_recordings(tmp_path)[0].windows) == 1
    delivery.close()


def test_a_delivery_holds_no_more_than_it_is_told_to(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck:
        def write(self, line: object) -> Iterator[None]:
            time.sleep(0.2)
            return iter(())

        def close(self) -> None: ...

    delivery = Delivery(Stuck(), lambda number, reason: {}, "windows of the recording", 3)
    for _ in range(10):
        delivery.tell(lambda: iter([{}]))
    assert delivery.dropped >= 6
    assert "EPLB windows of the recording are dropped" in caplog.text
    assert "more than 3 wait" in caplog.text
    delivery.close()
