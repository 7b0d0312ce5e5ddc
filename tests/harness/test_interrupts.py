# SPDX-License-Identifier: Apache-2.0
"""Interrupted at any moment, the harness ends with exit code 2 and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders.harness import Harness, gsm8k_task, small_config
from tests.builders.waiting import alive, wait_until

pytestmark = pytest.mark.usefixtures("default_signals")

ROOT = Path(__file__).parents[2]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def interrupt(process: "subprocess.Popen[str]", *signals: signal.Signals) -> str:
    """Send signals, one after another; what the process said on standard error."""
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert any(line.startswith("interrupted") for line in errors.splitlines()), errors
    return errors


@pytest.mark.parametrize("number", SIGNALS)
def test_while_libraries_are_imported(harness: Harness, number: signal.Signals) -> None:
    """A library that swallows exceptions, as some do around what is optional, cannot go on."""
    (harness.folder / "lm_eval").mkdir()
    (harness.folder / "lm_eval/__init__.py").write_text(
        "import pathlib, time\n"
        "pathlib.Path('importing').touch()\n"
        # A signal just before a sleep would be handled after it.
        "def wait():\n    while True:\n        time.sleep(0.05)\n"
        "try:\n    wait()\nexcept BaseException:\n    pass\n"
        "wait()\n"
    )
    process = harness.start(config=small_config())
    wait_until((harness.folder / "importing").exists)

    interrupt(process, number)


@pytest.mark.parametrize("number", SIGNALS)
def test_while_the_server_s_environment_is_examined(
    harness: Harness, number: signal.Signals
) -> None:
    doctor = harness.folder / "vllm-eplb"
    doctor.write_text("#!/bin/sh\necho $$ > examining\nexec sleep 60\n")
    examining = harness.folder / "examining"
    process = harness.start(config=small_config())
    wait_until(lambda: examining.exists() and examining.read_text() != "")

    interrupt(process, number)
    # It is killed, which takes a moment.
    wait_until(lambda: not alive(int(examining.read_text())))
    assert not list(harness.folder.glob("runs/small/*"))


@pytest.mark.parametrize("again", [0, 1, 3])
@pytest.mark.parametrize("moment", ["starting", "asking"])
def test_while_a_server_is_started_or_asked(harness: Harness, moment: str, again: int) -> None:
    behaviour = {"seconds_to_start": 60} if moment == "starting" else {"seconds_per_request": 0.5}
    config = small_config(tasks=[gsm8k_task(concurrency=1)])
    process = harness.start(config=config, **behaviour)
    log = harness.folder / "runs/small/arms/off/server.log"
    asked = log.parent / "ask.log"
    wait_until((log if moment == "starting" else asked).exists)
    wait_until(lambda: "worker" in log.read_text())

    interrupt(process, *[signal.SIGINT] * (1 + again))
    assert harness.workers_alive() == []


IN_A_FINALISER = """
import os, signal, time
from eval.interrupts import interrupts_raise

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})

with interrupts_raise():
    try:
        Finalised()
        time.sleep(60)
    except KeyboardInterrupt:
        print("ended")
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_in_a_finaliser_where_python_swallows_what_is_raised(number: signal.Signals) -> None:
    code = IN_A_FINALISER.format(name=number.name)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, cwd=ROOT
    )
    assert ended.stdout == "ended\n"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_while_python_ends_nothing_is_changed(harness: Harness, number: signal.Signals) -> None:
    """What a library leaves to the interpreter's end may take long, as torch's does."""
    (harness.folder / "lm_eval").mkdir()
    (harness.folder / "lm_eval/__init__.py").write_text(
        "import atexit, pathlib, time\n"
        "def end():\n"
        "    pathlib.Path('ending').touch()\n"
        "    time.sleep(1)\n"
        "atexit.register(end)\n"
        "raise RuntimeError('it cannot be imported')\n"
    )
    process = harness.start(config=small_config())
    wait_until((harness.folder / "ending").exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "interrupted" not in errors


IN_A_TEXT = """
import sys
from eval.interrupts import interrupts_change_nothing, interrupts_raise

with interrupts_raise():
    try:
        exec("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    except KeyboardInterrupt:
        pass
interrupts_change_nothing()
sys.exit(2)
"""


def test_in_a_text_that_a_library_executes_which_python_remembers(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(IN_A_TEXT)
    ended = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 2
