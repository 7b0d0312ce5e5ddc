# SPDX-License-Identifier: Apache-2.0
"""A served model under load, on which an operator acts, and of which an engine is stopped."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import ROOT, events_of, serving
from tests.e2e.test_reload import answers
from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE, read_statuses

EPLB = {"window_size": 10, "step_interval": 20, "num_redundant_experts": 4}
PLUGIN: dict[str, Any] = {
    "loopback": True,
    "check_weights": True,
    "control": True,
    "watch": {"warn_after_s": 5.0, "give_up_after_s": 600.0},
}


def command(*options: str) -> tuple[int, str]:
    """Exit code and output of ``vllm-eplb``."""
    done = subprocess.run(
        [sys.executable, "-m", "vllm_eplb_plugin.cli", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@contextmanager
def asking(url: str) -> Iterator[list[list[str]]]:
    """Answers to the same questions, again and again."""
    told: list[list[str]] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            told.append(answers(url))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            yield told
        finally:
            enough.set()
            asked.result()


def of_kind(events: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in events_of(events / "rank0.jsonl") if event["event"] == kind]


def step_of(said: str) -> int:
    """In which a command was carried out."""
    found = re.search(r"carried out in step (\d+)", said)
    assert found is not None, said
    return int(found[1])


def test_an_operator_acts_under_load_and_a_stopped_engine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In sync mode tests/releases/test_commands_of_operators.py does the same with two ranks.
    status_folder, events = tmp_path / "status", tmp_path / "events"
    status_folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(status_folder))
    arm = {"name": "acted", "eplb": {**EPLB, "use_async": True}, "plugin": PLUGIN}
    with serving(tmp_path, arm, events) as server:
        first = answers(server.url)
        with asking(server.url) as told:
            code, said = command("status", server.url)
            assert code == 0 and "EPLB: on" in said, said
            code, said = command("ctl", server.url, "pause")
            assert code == 0, said
            paused_in = step_of(said)
            code, said = command("ctl", server.url, "plan")
            assert code == 0 and "the plan alone was asked for: " in said, said
            code, said = command("status", server.url)
            assert code == 0 and "EPLB: paused by an operator" in said, said
            code, said = command("ctl", server.url, "rearrange")
            assert code == 0 and ("finished" in said or "skipped" in said), said
            code, said = command("ctl", server.url, "resume")
            assert code == 0, said
            resumed_in = step_of(said)
        assert set(map(tuple, told)) == {tuple(first)}
        began = [event["step"] for event in of_kind(events, "rearrangement_started")]
        # The plan alone, and the one that was asked for.
        assert sum(paused_in < step < resumed_in for step in began) == 2
        with asking(server.url), a_stopped_engine(status_folder) as rank:
            code, said = command_until("WRONG", "status", server.url)
            assert code == 1 and f"EP rank {rank}" in said, said
            code, said = command("status", str(status_folder))
            assert code == 1 and f"EP rank {rank}" in said, said
            code, said = command("ctl", server.url, "pause", "--wait", "0")
            assert code == 2 and "Not every engine has answered within 5 s" in said, said
        assert answers(server.url) == first
    checked = of_kind(events, "weights_checked")
    assert checked and all(event["mismatched_slots"] == [] for event in checked)


def command_until(word: str, *options: str) -> tuple[int, str]:
    """Ask until the answer has this word: a rank is silent after ten seconds."""
    for _ in range(60):
        code, said = command(*options)
        if word in said:
            break
    return code, said


@contextmanager
def a_stopped_engine(status_folder: Path) -> Iterator[int]:
    """The process of EP rank 1 does not run inside."""
    [status] = [one for one in read_statuses(status_folder) if one.rank == 1]
    process = psutil.Process(status.process)
    process.send_signal(signal.SIGSTOP)
    try:
        yield status.rank
    finally:
        process.send_signal(signal.SIGCONT)
