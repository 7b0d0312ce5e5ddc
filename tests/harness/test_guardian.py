# SPDX-License-Identifier: Apache-2.0
"""Nothing of a child process stays behind when the harness is killed, or its guardian is."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from eval.serving.leftovers import RECORD, Record, end_recorded, identity, read_record
from eval.serving.process import ChildProcess
from eval.serving.process_table import belonging_to, is_same, process
from tests.builders.waiting import alive, wait_until

pytestmark = pytest.mark.usefixtures("default_signals")

ROOT = Path(__file__).parents[2]

HARNESS = """
import sys, time
from pathlib import Path
from eval.serving.process import ChildProcess

with ChildProcess(sys.argv[2:], {}, Path(sys.argv[1]), grace_seconds=0.5):
    print("started", flush=True)
    time.sleep(600)
"""
# One in the server's session, one in a session of its own, and one that ignores SIGTERM.
SERVER = """
echo folder $TMPDIR
touch $TMPDIR/socket
sleep 600 & echo process $!
setsid sleep 600 & sleep 0.1; echo process $!
trap '' TERM
sleep 600 & echo process $!
echo process $$
echo all
wait
"""

SEGMENT = """
import os, sys, time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

segment = SharedMemory(create=True, size=2**20)
if sys.argv[1] == "untracked":
    resource_tracker.unregister(segment._name, "shared_memory")
os.fork()
print("segment", segment._name, flush=True)
time.sleep(600)
"""


class Started:
    """What a server in the log said of itself."""

    def __init__(self, log: Path) -> None:
        wait_until(lambda: log.exists() and "all\n" in log.read_text())
        words = [line.split() for line in log.read_text().splitlines()]
        self.folder = Path(next(line[1] for line in words if line[0] == "folder"))
        self.processes = [int(line[1]) for line in words if line[0] == "process"]
        self.record = log.with_name(f"{log.stem}{RECORD}")

    def gone(self) -> bool:
        left = [pid for pid in self.processes if alive(pid)]
        return not left and not self.folder.exists() and not self.record.exists()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has started a server, whose log is `tmp_path / "server.log"`."""
    command = [sys.executable, "-c", HARNESS, str(tmp_path / "server.log"), "bash", "-c", SERVER]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None and started.stdout.readline() == "started\n"
    yield started
    started.kill()
    started.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGSEGV])
def test_all_ends_with_a_harness_that_cannot_do_anything_about_it(
    harness: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals
) -> None:
    started = Started(tmp_path / "server.log")
    assert len(started.processes) == 4 and started.folder.is_dir()
    harness.send_signal(number)

    wait_until(started.gone)


def test_what_outlives_both_is_ended_by_who_comes_next(
    harness: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    started = Started(tmp_path / "server.log")
    record = read_record(started.record)
    assert record is not None
    harness.send_signal(signal.SIGSTOP)
    os.kill(record.guardian[0], signal.SIGKILL)
    # The harness is there: nobody else has to do anything.
    assert end_recorded(started.record, 0) == [] and started.record.exists()
    harness.kill()
    harness.wait()
    # Killed with the guardian, as the kernel was asked to; its children do not know.
    wait_until(lambda: not alive(started.processes[3]))
    in_session = [pid for pid in belonging_to(record.guardian[0]) if alive(pid)]
    assert started.processes[0] in in_session

    assert set(end_recorded(started.record, 5)) == set(in_session)
    wait_until(lambda: not any(alive(pid) for pid in in_session))
    assert not started.folder.exists() and not started.record.exists()
    assert end_recorded(started.record, 0) == []
    if alive(started.processes[1]):  # of a session of its own, which nothing leads to any more
        os.kill(started.processes[1], signal.SIGKILL)


@pytest.mark.parametrize("change", ["machine", "guardian"])
def test_a_record_of_other_processes_ends_none(tmp_path: Path, change: str) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    bystander = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True)
    try:
        wait_until(lambda: belonging_to(bystander.pid))
        pid, ticks = identity(bystander.pid)
        guardian = (pid, ticks - 1) if change == "guardian" else (pid, ticks)
        record = Record((ended.pid, 1), guardian, str(tmp_path / "none"))
        if change == "machine":
            record.machine = "another"
        file = tmp_path / f"server{RECORD}"
        record.write(file)

        assert end_recorded(file, 0) == []
        assert is_same(pid, ticks) and belonging_to(pid)
        # One of another machine is left to that.
        assert file.exists() == (change == "machine")
    finally:
        os.killpg(bystander.pid, signal.SIGKILL)
        bystander.wait()


def test_no_number_of_a_record_can_be_every_process() -> None:
    with pytest.raises(ValueError, match="no process that could be ended: -1"):
        Record((-1, 0), (5, 0), "folder")
    with pytest.raises(ValueError, match="no process that could be ended: 0"):
        Record((5, 0), (0, 0), "folder")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"harness": 1, "guardian": [2, 3]}'])
def test_a_record_that_is_none_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / f"server{RECORD}"
    file.write_text(text)
    assert read_record(file) is None


def test_a_process_whose_name_looks_like_numbers_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "x) S 1 1 (9"
    program.write_text("#!/bin/sh\nsleep 600; true\n")
    program.chmod(0o755)
    started = subprocess.Popen([program], start_new_session=True)
    try:
        wait_until(lambda: Path(f"/proc/{started.pid}/comm").read_text() == "x) S 1 1 (9\n")
        found = process(started.pid)
        assert found is not None
        assert (found.parent, found.session) == (os.getpid(), started.pid)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert process(started.pid) is None


def child(tmp_path: Path, *command: str) -> ChildProcess:
    return ChildProcess([sys.executable, "-c", *command], {}, tmp_path / "log", grace_seconds=0.2)


def segment_of(log: Path) -> Path:
    wait_until(lambda: "\n" in log.read_text())
    return Path("/dev/shm", log.read_text().split()[1].lstrip("/"))


def test_a_tracker_of_shared_memory_has_the_time_to_remove_it(tmp_path: Path) -> None:
    with child(tmp_path, SEGMENT, "tracked") as started:
        segment = segment_of(tmp_path / "log")
        assert segment.exists()
    assert not segment.exists() and started.left == []


def test_shared_memory_that_nobody_else_would_remove_is_removed(tmp_path: Path) -> None:
    with child(tmp_path, SEGMENT, "untracked") as started:
        segment = segment_of(tmp_path / "log")
    assert not segment.exists() and started.left == [str(segment)]


def test_shared_memory_that_another_process_uses_is_left(tmp_path: Path) -> None:
    with child(tmp_path, SEGMENT, "untracked") as started:
        path = segment_of(tmp_path / "log")
        other = SharedMemory(path.name)
        resource_tracker.unregister(f"/{path.name}", "shared_memory")
    try:
        assert path.exists() and started.left == []
    finally:
        other.close()
        path.unlink()


def test_a_killed_process_s_shared_memory_was_seen_before(tmp_path: Path) -> None:
    with child(tmp_path, SEGMENT, "untracked") as started:
        segment = segment_of(tmp_path / "log")
        record = tmp_path / f"log{RECORD}"
        wait_until(lambda: str(segment) in json.loads(record.read_text())["segments"])
        os.kill(started.pid, signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL
    assert not segment.exists() and started.left == [str(segment)]


def test_what_a_process_leaves_ends_some_time_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.serving.process._SECONDS_FOR_ORPHANS", 5.0)
    log = tmp_path / "log"
    with ChildProcess(["sh", "-c", "sleep 600 & echo child $!; exit 3"], {}, log) as started:
        assert started.wait() == 3
        orphan = int(log.read_text().split()[1])
        assert alive(orphan)
        wait_until(lambda: not alive(orphan))
        wait_until(lambda: not (tmp_path / f"log{RECORD}").exists())


def test_a_killed_guardian_takes_the_process_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ChildProcess(["sh", "-c", "sleep 600 & echo child $!; wait"], {}, log) as started:
        wait_until(lambda: "\n" in log.read_text())
        os.kill(started.session, signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL
    grandchild = int(log.read_text().split()[1])
    wait_until(lambda: not alive(grandchild))
    assert not (tmp_path / f"log{RECORD}").exists()


def test_a_process_has_temporary_files_of_its_own_and_the_compiler_s_are_kept(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    code = "import os, tempfile; print(tempfile.mkdtemp(), os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    with ChildProcess([sys.executable, "-c", code], {}, log) as started:
        assert started.wait() == 0
    made, cache = (Path(word) for word in log.read_text().split())
    assert made.parent.parent == Path(tempfile.gettempdir())
    assert not made.parent.exists()
    assert cache.parent == Path(tempfile.gettempdir())


def test_paths_of_sockets_are_short_enough_below_any_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    log = tmp_path / "log"
    code = "import socket, tempfile, uuid; "
    code += "socket.socket(socket.AF_UNIX).bind(f'{tempfile.gettempdir()}/{uuid.uuid4()}')"
    environment = {"TMPDIR": str(folder)}
    with ChildProcess([sys.executable, "-c", code], environment, log) as started:
        assert started.wait() == 0, log.read_text()


@pytest.mark.parametrize(("name", "below"), [("t", "t"), ("missing", None)])
def test_a_folder_that_is_chosen_for_temporary_files_has_them(
    tmp_path: Path, name: str, below: str | None
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        (Path(short) / "t").mkdir()
        log = tmp_path / "log"
        code = "import tempfile; print(tempfile.gettempdir())"
        environment = {"TMPDIR": f"{short}/{name}"}
        with ChildProcess([sys.executable, "-c", code], environment, log) as started:
            assert started.wait() == 0, log.read_text()
        parent = Path(short, below) if below else Path(tempfile.gettempdir())
    assert Path(log.read_text().strip()).parent == parent


def test_what_cannot_be_started_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        ChildProcess(["no-such-program"], {}, tmp_path / "log").__enter__()
    assert list(tmp_path.iterdir()) == [tmp_path / "log"]
