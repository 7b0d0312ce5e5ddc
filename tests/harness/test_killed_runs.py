# SPDX-License-Identifier: Apache-2.0
"""A harness that is killed leaves nothing, and the same command goes on from where it was."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from eval.serving.leftovers import RECORD
from tests.builders.harness import Harness, gsm8k_task, small_config
from tests.builders.waiting import wait_until

pytestmark = pytest.mark.usefixtures("default_signals")

SLOW = small_config(tasks=[gsm8k_task(concurrency=1)])


def records(harness: Harness) -> list[Path]:
    return list(harness.folder.glob(f"runs/**/*{RECORD}"))


def start(harness: Harness, temporary: Path) -> "subprocess.Popen[str]":
    harness.environment["TMPDIR"] = str(temporary)
    return harness.start(config=SLOW, seconds_per_request=0.1)


@pytest.mark.parametrize(("arm", "number"), [("off", signal.SIGQUIT), ("async", signal.SIGKILL)])
def test_what_was_started_ends_and_the_same_command_resumes(
    harness: Harness, tmp_path: Path, arm: str, number: signal.Signals
) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    killed = start(harness, temporary)
    wait_until((harness.folder / f"runs/small/arms/{arm}/ask.log").exists, 120)
    killed.send_signal(number)
    killed.communicate(timeout=60)
    assert killed.returncode == -number

    resumed = harness.run(config=SLOW)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert ("arm off: finished before" in resumed.stdout) == (arm != "off")
    assert harness.workers_alive() == [] and records(harness) == []
    assert not list(temporary.glob("eplb-*"))


def test_the_next_command_names_what_it_ends(harness: Harness, tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    killed = start(harness, temporary)
    wait_until((harness.folder / "runs/small/arms/off/ask.log").exists, 120)
    [record] = records(harness)
    guardian = int(record.read_text().split('"guardian": [')[1].split(",")[0])
    # One that cannot do what it is there for.
    os.kill(guardian, signal.SIGSTOP)
    killed.kill()
    killed.communicate(timeout=60)
    again = subprocess.Popen(
        killed.args, cwd=harness.folder, env=harness.environment, stdout=subprocess.PIPE, text=True
    )
    # Some of the time for a guardian passes.
    time.sleep(random.random())
    os.kill(guardian, signal.SIGKILL)
    output, _ = again.communicate(timeout=120)

    assert f"{record.parent.relative_to(harness.folder)}: " in output
    assert "of an earlier run, which was killed, ended" in output
    assert again.returncode == 0
    assert harness.workers_alive() == [] and records(harness) == []
