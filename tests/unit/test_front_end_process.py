# SPDX-License-Identifier: Apache-2.0
"""A server whose front end was killed ends, and takes nothing else with it."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.builders.waiting import alive, wait_until
from vllm_eplb_plugin.observe.front_end_process import VARIABLE, has_ended, mark_front_end

FRONT_END = """
import os, subprocess, sys, time
import setproctitle
from vllm_eplb_plugin.observe.front_end_process import mark_front_end
mark_front_end()
def start(title, code):
    return subprocess.Popen([title, "-c", code], executable=sys.executable)
watches, ends_its_worker, stays = sys.argv[1:]
worker = start("VLLM::Worker", watches)
engine = start("VLLM::EngineCore", ends_its_worker.replace("WORKER", str(worker.pid)))
mine = start("mine", stays)
ours, theirs = os.pipe()
if not (forked_engine := os.fork()):
    if not (forked_worker := os.fork()):
        setproctitle.setproctitle("VLLM::Worker")
        exec(stays)
    setproctitle.setproctitle("VLLM::EngineCore")
    os.write(theirs, str(forked_worker).encode())
    exec(stays)
forked_worker = int(os.read(ours, 20))
print(worker.pid, engine.pid, forked_engine, forked_worker, mine.pid, flush=True)
time.sleep(600)
"""
STAYS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
ENDS_ITS_WORKER = """
import os, signal, time
def end(*_):
    os.kill(WORKER, signal.SIGKILL)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(0.05)  # a signal just before a sleep would be handled after it
"""
WATCHES = """
import os, time
from vllm_eplb_plugin.observe.front_end_process import (
    VARIABLE, end_server, has_ended, started_by
)
told, started = os.environ[VARIABLE], []
while len(started) < 5:
    started = started_by(told)
print("looked", flush=True)
while not has_ended(told):
    time.sleep(0.05)
end_server(told, started)
"""


def test_all_that_a_killed_front_end_has_started_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    stranger = subprocess.Popen(["VLLM::Worker", "-c", STAYS], executable=sys.executable)
    command = [sys.executable, "-c", FRONT_END, WATCHES, ENDS_ITS_WORKER, STAYS]
    front_end = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert front_end.stdout is not None
    *pids, of_the_program = [int(pid) for pid in front_end.stdout.readline().split()]
    assert front_end.stdout.readline() == "looked\n"
    assert all(map(alive, pids))
    front_end.kill()
    front_end.wait()
    try:
        wait_until(lambda: not any(map(alive, pids)))
        assert stranger.poll() is None and alive(of_the_program)
    finally:
        os.kill(of_the_program, signal.SIGKILL)
        stranger.kill()
        stranger.wait()


def marked_in_a_child(queue: "multiprocessing.Queue[str]") -> None:
    mark_front_end()
    queue.put(os.environ[VARIABLE])


def test_a_child_that_serves_as_well_keeps_it_and_what_a_launcher_starts_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    mark_front_end()
    mine = os.environ[VARIABLE]
    assert not has_ended(mine)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=marked_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == mine
    child.join()
    code = (
        "import os; from vllm_eplb_plugin.observe import front_end_process as f; "
        "f.mark_front_end(); print(os.getpid(), os.environ[f.VARIABLE])"
    )
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, marked, *_ = told.stdout.split()
    assert pid == marked


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        (lambda pid, start, space: f"{pid} {int(start) + 1} {space}", True),
        (lambda pid, start, space: f"{pid} {start} pid:[1]", False),
        (lambda pid, start, space: "", False),
    ],
    ids=["the number is another process's now", "another host or container", "nothing"],
)
def test_only_what_can_be_told_has_ended(
    change: Callable[[str, str, str], str], ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    mark_front_end()
    assert has_ended(change(*os.environ[VARIABLE].split(" "))) == ended
