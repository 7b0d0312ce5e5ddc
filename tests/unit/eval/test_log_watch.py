# SPDX-License-Identifier: Apache-2.0
"""When a log said something."""

import time
from pathlib import Path

import pytest

from eval.serving.log_watch import LogWatch


@pytest.mark.parametrize(
    ("ago", "late"), [(30.0, True), (0.0, False), (-86400.0, False)], ids=["late", "now", "ahead"]
)
def test_a_line_was_said_in_its_second_however_late_it_is_found(
    ago: float, late: bool, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    log.write_text("(Worker pid=1) WARNING 01-01 00:00:00 [watch.py:1] said before\n")
    before = time.time()
    with LogWatch(log, {"said": "said", "never": "never"}) as watch, log.open("a") as lines:
        moment = time.strftime("%m-%d %H:%M:%S", time.localtime(before - ago))
        lines.write(f"(Worker pid=1) WARNING {moment} [watch.py:1] said at last\n")
    said = watch.found["said"]
    assert "at last" in said.line and "never" not in watch.found
    assert said.time == int(before - ago) + 1 if late else before <= said.time <= time.time()


def test_a_line_without_a_time_was_said_when_it_is_found(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.touch()
    before = time.time()
    with LogWatch(log, {"said": "said"}) as watch, log.open("a") as lines:
        lines.write("said by print\n")
    assert before <= watch.found["said"].time <= time.time()
