# SPDX-License-Identifier: Apache-2.0
"""What is told reaches its file, in order and whole; what cannot is counted, and nobody waits."""

import errno
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vllm_eplb_plugin.observe import delivery as module
from vllm_eplb_plugin.observe.delivery import Delivery
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines


def dropped_line(number: int, reason: str) -> Mapping[str, Any]:
    return {"dropped": number, "reason": reason}


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "rank0.jsonl"


@pytest.fixture
def delivery(file: Path) -> Iterator[Delivery]:
    made = Delivery(JsonLines(file), dropped_line)
    yield made
    made.close()


def test_lines_arrive_in_order_and_large_ones_whole(delivery: Delivery, file: Path) -> None:
    large = {"rows": [[number] * 500 for number in range(60)], "name": "é"}
    told = [{"number": 1}, large, {"number": 3}]
    for line in told:
        delivery.tell(lambda line=line: [None, line, None])
    assert delivery.flush(10)
    assert lines_of(file) == told


def test_what_is_told_is_made_on_another_thread(delivery: Delivery, file: Path) -> None:
    delivery.tell(lambda: [{"thread": threading.current_thread().name}])
    assert delivery.flush(10)
    assert lines_of(file) == [{"thread": "eplb-delivery"}]


class Disk:
    """`os.write`, which writes half of what it is given and fails while the disk is full."""

    def __init__(self) -> None:
        self.full = True
        self._write = os.write

    def write(self, file: int, data: Any) -> int:
        if not self.full:
            return self._write(file, data)
        if len(data) > 1:
            return self._write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_lines_that_are_counted_and_said_once(
    delivery: Delivery,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            delivery.tell(lambda number=number: [{"number": number}])
        assert delivery.flush(10)
        assert file.read_bytes() == b""
        disk.full = False
        delivery.tell(lambda: [{"number": 3}])
        assert delivery.flush(10)
    reason = "[Errno 28] No space left on device"
    assert lines_of(file) == [{"dropped": 3, "reason": reason}, {"number": 3}]
    [record] = caplog.records
    assert reason in record.getMessage()
    assert "Serving goes on" in record.getMessage()


def test_a_folder_that_is_taken_away_is_made_again(delivery: Delivery, file: Path) -> None:
    delivery.tell(lambda: [{"number": 0}])
    assert delivery.flush(10)
    shutil.rmtree(file.parent)
    delivery.tell(lambda: [{"number": 1}])
    assert delivery.flush(10)
    assert lines_of(file) == [{"number": 1}]
    # In its place something in which no file can be.
    shutil.rmtree(file.parent)
    file.parent.write_text("")
    delivery.tell(lambda: [{"number": 2}])
    assert delivery.flush(10)
    file.parent.unlink()
    delivery.tell(lambda: [{"number": 3}])
    assert delivery.flush(10)
    first, second = lines_of(file)
    assert first["dropped"] == 1
    assert second == {"number": 3}


def test_an_event_that_cannot_be_made_costs_nobody_the_next_one(
    delivery: Delivery, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Iterator[Mapping[str, Any]]:
        yield {"number": 0}
        raise IndexError("no such layer")

    delivery.tell(make)
    delivery.tell(lambda: [{"number": 1}])
    assert delivery.flush(10)
    reason = "IndexError: no such layer"
    assert lines_of(file) == [{"number": 0}, {"dropped": 1, "reason": reason}, {"number": 1}]
    assert reason in caplog.text


class SlowSink(JsonLines):
    """Writes nothing until it may."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.may_write = threading.Event()

    def write(self, line: Mapping[str, Any]) -> Iterator[None]:
        self.may_write.wait()
        return super().write(line)


def test_nobody_waits_for_a_slow_sink_and_what_is_too_much_is_counted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 5)
    sink = SlowSink(file)
    delivery = Delivery(sink, dropped_line)
    for number in range(100):
        delivery.tell(lambda number=number: [{"number": number}])
    sink.may_write.set()
    assert delivery.flush(10)
    lines = lines_of(file)
    told = [line for line in lines if "dropped" in line]
    assert told
    assert all("more than 5 wait" in line["reason"] for line in told)
    assert sum(line["dropped"] for line in told) + len(lines) - len(told) == 100
    delivery.close()


PROCESS = """
import multiprocessing, signal, sys, time
from pathlib import Path
from vllm_eplb_plugin.observe import delivery as module
from vllm_eplb_plugin.observe.delivery import Delivery
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines

module._SECONDS_TO_DELIVER_AT_THE_END = 20.0

def work():
    # As vLLM's workers do.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    delivery = Delivery(JsonLines(Path(sys.argv[1])), lambda number, reason: {"dropped": number})
    for number in range(500):
        delivery.tell(lambda number=number: [{"number": number}])
    print("told", flush=True)
    while sys.argv[2] == "signal":
        time.sleep(0.05)  # a signal just before a sleep would be handled after it

if __name__ == "__main__":
    if sys.argv[3] == "child":
        context = multiprocessing.get_context("fork")
        child = context.Process(target=work)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        child.start()
        child.join()
    else:
        work()
"""


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("whose", ["own", "child"])
@pytest.mark.parametrize("end", ["signal", "return"])
def test_what_was_told_is_there_when_the_process_ends(file: Path, end: str, whose: str) -> None:
    command = [sys.executable, "-c", PROCESS, str(file), end, whose]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "told\n"
        if end == "signal":
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert lines_of(file) == [{"number": number} for number in range(500)]


def test_a_file_that_may_not_grow_ends_no_process(file: Path) -> None:
    """A limit that the kernel itself enforces, in the middle of a line."""
    code = PROCESS.replace("range(500)", "range(200)")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(file), "return", "own"],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    written = lines_of(file)
    assert written == [{"number": number} for number in range(len(written))]
    assert 0 < len(written) < 200
