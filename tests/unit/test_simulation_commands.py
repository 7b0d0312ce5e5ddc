# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb simulate` and `advise`: what they print, write and refuse."""

import csv
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.builders.simulated import SHAPE, a_recording, random_loads
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.planning.problem import Integers
from vllm_eplb_plugin.recording.recording import Recording, Shape
from vllm_eplb_plugin.recording.rotation import Rotation
from vllm_eplb_plugin.recording.writer import RecordingWriter
from vllm_eplb_plugin.simulation.advising import Choice, choose, grid_of
from vllm_eplb_plugin.simulation.charts import front_of
from vllm_eplb_plugin.simulation.combination import Grid
from vllm_eplb_plugin.simulation.page import render_page
from vllm_eplb_plugin.simulation.playing import play
from vllm_eplb_plugin.simulation.result import Simulated, simulated


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], env={"COLUMNS": "80"})


def written(folder: Path, recording: Recording) -> Path:
    """A folder with a recording, as a server leaves it."""
    writer = RecordingWriter(folder / "start", recording.served, Rotation(folder, 10**9))
    for window in recording.windows:
        writer.taken(window)
    for _ in writer.write():
        pass
    return folder


def played(recording: Recording, grid: Grid, link: float | None = None) -> Simulated:
    combinations, _ = grid.combinations(recording)
    return simulated(recording, [play(recording, one) for one in combinations], link)


def balanced_loads(windows: int) -> list[Integers]:
    return [np.full((SHAPE.layers, SHAPE.experts), 1000, np.int64)] * windows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "recorded", a_recording(random_loads(1, 12, domains=2)))


def test_a_table_of_80_columns_and_files_of_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "a.csv", "a.html")]
    asked: Sequence[str | Path] = (
        "--redundant", "8", "--redundant", "16", "--interval", "1", "--interval", "3",
        "--window", "1", "--window", "2", "--link", "1e6",
        "--json", files[0], "--csv", files[1], "--html", files[2],
    )  # fmt: skip
    result = run("simulate", folder, *asked)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "12 windows, 1 change of domain" in result.stdout
    [told] = json.loads(files[0].read_text())["recordings"]
    rows = told["combinations"]
    lines = list(csv.DictReader(files[1].open()))
    assert len(rows) == len(lines) == 2 * (1 + 2 * 4)
    for row, line in zip(rows, lines, strict=True):
        served = [value for value in row["balancedness"][1:] if value is not None]
        assert row["mean"] == pytest.approx(np.mean(served))
        assert row["lowest"] == pytest.approx(min(served))
        assert row["bytes"] == sum(one["bytes"] for one in row["rearrangements"])
        assert row["link_s"] == pytest.approx(
            sum(one["busiest_bytes"] for one in row["rearrangements"]) / 1e6
        )
        assert row["redundant_bytes"] == row["redundant"] * 2 * 1000 // 4
        assert float(line["mean"]) == row["mean"]
    assert told["changes"] == [700]
    assert files[2].read_text().count("<svg") == 1 + 2 * 4


def test_a_policy_in_json_is_numbered_and_explained(folder: Path) -> None:
    text = '{"policy": {"incremental": {"target": 0.9}}}'
    result = run("simulate", folder, "--policy", text, "--policy", "none")
    assert re.search(r"^ *1 +planning 1 ", result.stdout, re.MULTILINE)
    assert f"planning 1: {text}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--policy", "defautl"), "default"),
        (("--redundant", "3"), "none of the combinations can be played"),
        (("--json", "/nowhere/at.json"), "cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(
    folder: Path, arguments: tuple[str, str], told: str
) -> None:
    result = run("simulate", folder, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_recording_of_one_window_and_one_without_bytes_are_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "one", a_recording(random_loads(2, 1)))
    assert "one window" in run("simulate", one).stderr
    recording = a_recording(random_loads(2, 4))
    unknown = replace(recording, served=replace(recording.served, expert_bytes=(0, 0)))
    folder = written(tmp_path / "unknown", unknown)
    assert "--expert-bytes" in run("simulate", folder).stderr
    assert run("simulate", folder, "--expert-bytes", "7").exit_code == 0
    assert run("simulate", tmp_path / "nothing").exit_code == 2


_SLEEPS = """
import pathlib, time
class Sleeps:
    def __call__(self, problem):
        pathlib.Path("asleep").touch()
        while True:
            time.sleep(0.05)  # a signal just before a sleep would be handled after it
"""


@pytest.mark.usefixtures("default_signals")
def test_an_interrupt_ends_it_at_once_with_what_is_done(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sleeping.py").write_text(_SLEEPS)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "vllm_eplb_plugin.cli", "simulate", str(folder)]
    started = subprocess.Popen(
        [*command, "--policy", "none", "--policy", "sleeping:Sleeps", "--json", "done.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{root}:{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # One core: combinations are played one after another.
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    while started.poll() is None and not (tmp_path / "asleep").exists():
        time.sleep(0.1)
    time.sleep(1)
    played_by = [int(one) for one in children.read_text().split()]
    os.killpg(started.pid, signal.SIGINT)
    output, errors = started.communicate(timeout=30)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted: 1 of 2 combinations are done" in errors
    assert "none" in output
    assert len(json.loads((tmp_path / "done.json").read_text())["recordings"]) == 1
    assert played_by
    assert not any(Path(f"/proc/{one}").exists() for one in played_by)


def test_the_page_is_whole_by_itself_and_says_what_is_foreign_as_text() -> None:
    recording = a_recording(random_loads(3, 6))
    named = replace(recording, served=replace(recording.served, model="<script>alert(1)</script>"))
    page = render_page([played(named, grid_of(named))])
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    used = set(re.findall(r'class="([^"]+)"', page.split("</style>")[1]))
    styles = page.split("</style>")[0]
    for name in {one for names in used for one in names.split()}:
        assert f".{name}" in styles, name


def test_the_front_is_what_no_other_beats_with_fewer_bytes() -> None:
    rows = played(a_recording(random_loads(4, 8)), grid_of(a_recording(random_loads(4, 8)))).rows
    front = front_of(rows)
    for at, row in enumerate(rows):
        beaten = any(
            (other.as_served >= row.as_served and other.bytes < row.bytes)
            or (other.as_served > row.as_served and other.bytes <= row.bytes)
            for other in rows
        )  # fmt: skip
        if at in front:
            assert not beaten
        elif not beaten:
            twins = [rows[one] for one in front]
            assert any((one.as_served, one.bytes) == (row.as_served, row.bytes) for one in twins)


def test_advice_has_ten_lines_and_options_that_can_be_copied(folder: Path) -> None:
    result = run("advise", folder, "--link", "1e9")
    assert result.exit_code == 0, result.output
    *lines, empty, options = result.stdout.splitlines()
    assert (len(lines), empty) == (10, "")
    assert "EPLB is worth it here." in lines[1]
    words = shlex.split(options)
    assert words[0::2] == ["--enable-eplb", *words[2::2]]
    config = json.loads(words[2])
    assert config["step_interval"] % 100 == 0
    assert config["window_size"] == 100
    assert json.loads(words[4])["eplb_plugin"]["planning"]["policy"] in ("default", "incremental")


@pytest.mark.parametrize(
    ("loads", "link", "verdict"),
    [
        (balanced_loads(12), 1e9, "already balanced"),
        (random_loads(5, 5), 1e9, "too short"),
        (random_loads(5, 12), 1e9, "still"),
        (random_loads(5, 12, domains=2), 1e9, "worth it"),
        (random_loads(5, 12, domains=2), 1.0, "costs more than it gains"),
        ([np.zeros((2, 16), np.int64)] * 12, 1e9, "too short"),
    ],
)
def test_advice_says_when_not_and_when_it_cannot_tell(
    loads: list[Integers], link: float, verdict: str, tmp_path: Path
) -> None:
    recording = a_recording(loads)
    choice = choose(recording, played(recording, grid_of(recording), link).rows)
    assert choice.verdict == verdict
    result = run("advise", written(tmp_path, recording), "--link", str(link))
    assert ("--enable-eplb" in result.stdout) == (verdict in ("worth it", "still"))


def test_moving_is_not_worth_it_where_the_link_is_busy_for_longer_than_it_saves() -> None:
    recording = a_recording(random_loads(5, 12, domains=2))

    def advised(link: float) -> Choice:
        return choose(recording, played(recording, grid_of(recording), link).rows)

    slow = advised(1.0)
    assert slow.moving is not None
    even = slow.moving / slow.gain
    assert advised(0.9 * even).verdict == "costs more than it gains"
    assert advised(1.1 * even).verdict == "worth it"


def test_advice_takes_more_memory_and_more_moves_only_where_they_gain() -> None:
    recording = a_recording(random_loads(6, 16, domains=4), Shape(2, 16, 24, 4))
    rows = played(recording, grid_of(recording), 1e9).rows
    chosen = choose(recording, rows).chosen
    moving = [row for row in rows if row.policy != "none"]
    best = max(row.as_served for row in moving)
    for row in moving:
        if row.redundant < chosen.redundant:
            assert row.as_served < best - 0.01
    beside = [row for row in moving if row.redundant == chosen.redundant]
    for row in beside:
        if row.bytes < chosen.bytes:
            assert row.as_served < max(one.as_served for one in beside) - 0.005
    assert not math.isnan(chosen.as_served)
