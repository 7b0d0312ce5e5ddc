# SPDX-License-Identifier: Apache-2.0
"""When a log said something."""

import time
from pathlib import Path

import pytest

from eval.serving.log_watch import LogWatch, _said_by


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


@pytest.mark.parametrize(
    ("written", "found", "said"),
    [
        ("12-31 23:59:50", "2027-01-01 00:00:20", "2026-12-31 23:59:51"),
        ("01-01 00:00:01", "2026-12-31 23:59:59", "2026-12-31 23:59:59"),
        ("02-29 12:00:00", "2028-02-29 12:00:30", "2028-02-29 12:00:01"),
        ("02-29 23:59:59", "2028-03-01 00:00:30", "2028-03-01 00:00:00"),
        ("13-32 25:00:00", "2026-11-29 12:00:00", "2026-11-29 12:00:00"),
    ],
    ids=["year before", "ahead of the year", "leap day", "after it", "no time"],
)
def test_a_time_without_a_year_is_of_the_nearest_one(written: str, found: str, said: str) -> None:
    line = f"(Worker pid=1) WARNING {written} [watch.py:1] said"
    assert _said_by(line, unix(found)) == unix(said)


def unix(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))
