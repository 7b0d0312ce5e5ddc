# SPDX-License-Identifier: Apache-2.0
"""Nothing of a child process stays behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.interrupts import interrupts_raise, interrupts_wait
from eval.serving.process import ChildProcess, last_lines
from tests.builders.waiting import alive, wait_until

pytestmark = pytest.mark.usefixtures("default_signals")

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def wait_for(log: Path, text: str) -> str:
    wait_until(lambda: text in log.read_text(), 30)
    return log.read_text()


def test_a_child_of_the_child_is_stopped_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ChildProcess(["sh", "-c", "sleep 600 & echo child $!; wait"], {}, log):
        grandchild = int(wait_for(log, "\n").split()[1])

    wait_until(lambda: not alive(grandchild))


@pytest.mark.parametrize("moment", ["start", "restart"])
def test_an_interrupt_while_a_process_starts_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    started: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            started.append(self.pid)
            if moment == "start" or len(started) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    child = ChildProcess(["sleep", "600"], {}, tmp_path / "log")
    with pytest.raises(KeyboardInterrupt), interrupts_raise(), child:
        child.restart()

    assert len(started) == (1 if moment == "start" else 2)
    wait_until(lambda: not any(map(alive, started)))


def test_an_interrupt_between_end_and_new_start_stays_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = ChildProcess(["sleep", "600"], {}, tmp_path / "log")
    stop = child._stop

    def stop_interrupted() -> None:
        monkeypatch.undo()
        stop()
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), interrupts_raise(), child:
        monkeypatch.setattr(child, "_stop", stop_interrupted)
        child.restart()


def test_what_a_dead_child_left_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ChildProcess(["sh", "-c", "sleep 600 & echo child $!; exit 4"], {}, log) as process:
        assert process.wait() == 4
        grandchild = int(wait_for(log, "\n").split()[1])

    wait_until(lambda: not alive(grandchild))
    assert process.wait() == 4


def test_a_process_that_ignores_termination_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ChildProcess([sys.executable, "-c", STUBBORN], {}, log, grace_seconds=0.2) as process:
        wait_for(log, "ready")
        assert process.running()

    assert not process.running()
    assert process.wait() == -signal.SIGKILL


def test_the_environment_is_added(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ChildProcess(
        ["sh", "-c", "echo $HARNESS_TEST $HOME"], {"HARNESS_TEST": "1"}, log
    ) as child:
        child.wait()

    assert log.read_text() == f"1 {os.environ['HOME']}\n"


def test_an_interrupt_raises_inside_and_only_inside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupts_raise():
        os.kill(os.getpid(), signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_what_who_started_the_harness_ignores_stays_ignored(ignored: signal.Signals) -> None:
    signal.signal(ignored, signal.SIG_IGN)
    with interrupts_raise():
        os.kill(os.getpid(), ignored)
        assert signal.getsignal(ignored) is signal.SIG_IGN


def test_an_interrupt_waits_for_what_must_not_be_left_half_done() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts_raise():
        with interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("done")
        steps.append("not reached")

    assert steps == ["done"]


def test_the_last_lines_of_a_log_are_the_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(50)) + b"\xff\n")

    assert last_lines(log, 3) == "line 48\nline 49\n\N{REPLACEMENT CHARACTER}"
