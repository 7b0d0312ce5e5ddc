# SPDX-License-Identifier: Apache-2.0
"""A load that comes and goes, what the harness sees of processes, and what a log says first."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eval.activity.after import outcomes_after
from eval.commands.harm import with_fault
from eval.config.loading import ALL_ARMS, load_config
from eval.errors import ConfigError, ServerError
from eval.load import same_questions, soak
from eval.load.same_questions import QUESTIONS, SameQuestions
from eval.load.soak import Soak
from eval.serving.log_watch import LogWatch
from eval.serving.ranks import processes_of, rank_process, shared_files, usage_of
from tests.builders.completions import Completions, completions_server
from tests.builders.events import finished, moment, told, write_events
from vllm_eplb_plugin.observe.events import RearrangementFailed, Source

HOLDER = """
import mmap, os, sys, time
file = os.open('/dev/shm/' + sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 3 << 20)
held = mmap.mmap(file, 3 << 20)
print('ready', flush=True)
input()
os.unlink('/dev/shm/' + sys.argv[1])
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that calls itself EP rank 1 and has 3 MiB of shared memory, in a session."""
    name = f"test-{tmp_path.name}-{os.getpid()}"
    title = "VLLM::Worker_DP1_EP1"
    process = subprocess.Popen(
        [title, "-c", HOLDER, name],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield process
    process.communicate(b"\n", timeout=30)


def test_a_rank_is_found_by_what_its_process_calls_itself(
    holder: subprocess.Popen[bytes],
) -> None:
    assert rank_process(holder.pid, 1) == holder.pid
    with pytest.raises(ServerError, match="no process of the server is EP rank 0: there are VLLM"):
        rank_process(holder.pid, 0)


def test_what_a_session_holds_is_counted(holder: subprocess.Popen[bytes]) -> None:
    used = usage_of(holder.pid)
    assert (used.threads, used.shared_mib) == (1, 3)
    assert 3 <= used.descriptors < 20
    (file,) = shared_files(holder.pid)
    assert file.exists()
    file.unlink()
    assert shared_files(holder.pid) == set()
    assert usage_of(holder.pid).shared_mib == 3  # it has no name any more and is still there
    file.touch()


def test_a_process_that_has_ended_is_none(holder: subprocess.Popen[bytes]) -> None:
    assert processes_of(holder.pid) == [holder.pid]
    child = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays in the table
    assert processes_of(child.pid) == []
    child.wait()


def test_a_log_is_read_from_where_it_was_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("EP rank 1 has failed\n")
    before = time.time()
    with (
        LogWatch(log, {"first": "rank (1|2) has", "never": "rank 3"}) as watch,
        log.open("a") as end,
    ):
        for part in ("EP rank 2", " has failed\nEP rank 1", " has failed\n"):
            end.write(part)
            end.flush()
    assert list(watch.found) == ["first"]
    assert watch.found["first"].line == "EP rank 2 has failed"
    assert before <= watch.found["first"].time <= time.time()


@pytest.fixture
def server() -> Iterator[Completions]:
    with completions_server() as served:
        yield served


@pytest.fixture
def soaked(server: Completions, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Soaks it for three seconds, in which something happens all the time."""
    monkeypatch.setattr(soak, "_COMPARED_EVERY", 0.05)
    monkeypatch.setattr(SameQuestions, "before", lambda self: self._first.extend(QUESTIONS))

    async def answer(self: SameQuestions, client: Any, question: str) -> str:
        return question

    monkeypatch.setattr(SameQuestions, "_ask", answer)
    monkeypatch.setattr(soak, "_REST_SECONDS", 0.05)
    acts: list[str] = []

    async def act(_: random.Random) -> str:
        acts.append("done")
        return "told"

    how = Soak(4, 3.0, 60, 64, 2, {"act": act}, act_seconds=(0.01, 0.02))
    monkeypatch.setattr(soak._Soaking, "_pause", act_for("pause"))
    monkeypatch.setattr(soak._Soaking, "_one_rank", one_rank)
    load, trial = soak.soak(server.url, "model", how, lambda _: None)
    return server, load, trial, acts


def act_for(what: str) -> Any:
    async def act(self: Any, _: random.Random) -> str:
        return what

    return act


async def one_rank(self: Any, choose: random.Random) -> str:
    self._only = 1
    await asyncio.sleep(0.1)
    self._only = None
    return "alone"


def test_requests_of_all_lengths_come_and_are_broken_off_and_things_happen(soaked: Any) -> None:
    server, load, trial, acts = soaked
    assert load.problem is None
    assert load.requests >= 10 and trial.aborted >= 1
    lengths = {len(request["prompt"]) + request["max_tokens"] for request in server.asked}
    assert min(lengths) <= 8 and 32 < max(lengths) <= 64
    assert trial.same_answers.asked >= 6 and trial.same_answers.different == 0
    assert {one.what for one in trial.happenings} == {"pause", "one rank", "act"}
    assert len(acts) == sum(one.said == "told" for one in trial.happenings)
    ranks = {headers.get("X-data-parallel-rank") for headers in server.headers}
    assert ranks == {None, "1"}


class Answers(BaseHTTPRequestHandler):
    """Answers with the question, and after ten answers with something else."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).given += 1
        text = request["prompt"] if type(self).given <= 10 else "another"
        body = json.dumps({"choices": [{"text": text}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    given = 0


def test_an_answer_that_differs_from_the_first_is_told() -> None:
    Answers.given = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    questions = SameQuestions(f"http://127.0.0.1:{server.server_port}", "model", None)

    async def compare() -> None:
        async with same_questions.new_client(questions._url, None, 10) as client:
            for number in range(5):
                await questions.compare(client, number)

    try:
        questions.before()
        asyncio.run(compare())
    finally:
        server.shutdown()
        server.server_close()
    assert (questions.found.asked, questions.found.different) == (5, 1)
    assert questions.found.example is not None and "-> 'another'" in questions.found.example


def test_outcomes_are_those_since_the_fault(tmp_path: Path) -> None:
    failed = RearrangementFailed(*moment(2), 0.1, "gone", 1)
    ranks = [
        [told(1, finished(1)), told(5, failed), told(6, finished(3))],
        [told(7, finished(4), Source(1, 1, 0))],
    ]
    write_events(tmp_path, *ranks)
    assert outcomes_after(tmp_path, 2) == {2: "failed", 3: "finished"}


def test_a_fault_that_cannot_strike_is_refused_before_anything_starts() -> None:
    config = load_config(Path("eval/config/presets/cpu.yaml"), [], arms=ALL_ARMS)
    arms = {arm.name: arm for arm in config.arms}
    ordered = with_fault(config, arms["async"], "worker_slow", 4.0)
    assert ordered.plugin["fault"] == "worker_slow"
    assert ordered.plugin["fault_when"] == {"rank": 1, "rearrangement": 50, "seconds": 4.0}
    assert ordered.plugin["loopback"] is True
    with pytest.raises(ConfigError, match="arm sync has no async worker"):
        with_fault(config, arms["sync"], "worker_slow", None)
    for name in ("off", "stock-async"):
        with pytest.raises(ConfigError, match="has no EPLB of the plugin"):
            with_fault(config, arms[name], "rank_killed", None)
