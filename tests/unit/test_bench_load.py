# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench` tells the machine's load before it adds its own."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vllm_eplb_plugin.bench.cli import bench
from vllm_eplb_plugin.cli.main import main

WARNING = "warning: in the last minute this machine had work for"
SMALL = ("--shape", "3x8+4/1x1x4", "--policy", "default")
COMMANDS = {
    one.callback.__name__: one.callback.__module__
    for one in bench.registered_commands
    if one.callback
}
"""Each with the module that it is of."""
SHORT = ("--seeds", "1", "--windows", "1")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


def with_load(monkeypatch: pytest.MonkeyPatch, last_minute: float) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (last_minute, 0.5, 0.25))


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("last_minute", "warned"), [(0.9, ""), (1.0, "25%"), (6.0, "150%")])
def test_a_notable_share_of_other_work_is_warned_of(
    last_minute: float, warned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_load(monkeypatch, last_minute)
    first, second, *_ = run("schedule", *SMALL, *SHORT, "--every", "1").splitlines()
    assert first.startswith(f"before: load average {last_minute:.2f}, 0.50, 0.25 on 4 cores, ")
    assert second.startswith(f"{WARNING} {warned} of its cores" if warned else "3x8+4")


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("command", ["plan", "schedule"])
def test_the_load_is_written_where_the_numbers_are(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_load(monkeypatch, 1.5)
    file = tmp_path / "bench.json"
    more = ("--rounds", "0", "--load", "slow") if command == "plan" else ("--every", "1")
    run(command, *SMALL, *SHORT, *more, "--json", str(file))
    written = json.loads(file.read_text())["load_before"]
    assert written.pop("running") >= 0
    assert written == {"average": [1.5, 0.5, 0.25], "cores": 4}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_benchmark_looks_before_all_else(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LookedError(Exception):
        pass

    def look() -> None:
        raise LookedError

    monkeypatch.setattr(sys.modules[COMMANDS[command]], "tell_load", look)
    done = CliRunner().invoke(main, ["bench", command])
    assert isinstance(done.exception, LookedError)


def test_a_machine_that_tells_no_load_is_measured_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", refuse)
    output = run("schedule", *SMALL, *SHORT, "--every", "1")
    assert output.startswith("before: this machine does not tell its load\n3x8+4")
