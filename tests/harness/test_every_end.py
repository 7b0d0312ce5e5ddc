# SPDX-License-Identifier: Apache-2.0
"""Whatever ends a run: a verdict, a result and a report, and no traceback."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from tests.builders.harness import Harness


@pytest.fixture
def harness(forked_harness: Harness) -> Harness:
    """Its runs come to their end by themselves."""
    return forked_harness


def could_not_run(harness: Harness, ended: "subprocess.CompletedProcess[str]") -> str:
    """The reason, which is the same in all that a run leaves."""
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    result = harness.result()
    assert result["verdict"] == "could not run"
    [reason] = result["reasons"]
    assert isinstance(reason, str)
    first = reason.splitlines()[0]
    assert first in ended.stdout
    error = Xml.parse(harness.folder / "junit.xml").getroot().find("testcase/error")
    assert error is not None and first in str(error.text)
    report = (harness.folder / "runs/small/report.md").read_text(encoding="utf-8")
    assert report.startswith("## EPLB evaluation small: could not run")
    return reason


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"answers": {"body": "{}"}}, "the server gave an answer that cannot be read: gsm8k, que"),
        ({"answers": {"body": r'{"choices": [{"text": "\ud800"}]}'}}, "hex escape"),
        ({"answers": {"body": "busy", "status": 429}}, "the server refused a request: gsm8k, que"),
        ({"metrics": "<html>{"}, "/metrics answers cannot be read"),
    ],
)
def test_an_answer_that_is_none_ends_a_run(
    harness: Harness, behaviour: dict[str, Any], said: str
) -> None:
    ended = harness.run("--junit", "junit.xml", **behaviour)

    assert said in could_not_run(harness, ended)
    assert harness.workers_alive() == []


def test_a_cut_line_of_questions_is_told_before_anything_starts(harness: Harness) -> None:
    file = harness.folder / "gsm8k/test.jsonl"
    file.write_text(file.read_text()[:-20])
    ended = harness.run("--junit", "junit.xml")

    assert ended.returncode == 2
    assert "gsm8k/test.jsonl, line 20" in ended.stderr
    assert "could not run" in (harness.folder / "junit.xml").read_text()
    assert not (harness.folder / "runs").exists()


def test_no_cache_of_datasets_is_needed_for_questions_in_files(harness: Harness) -> None:
    harness.imported = None  # it counts when it is imported
    harness.environment["HF_DATASETS_CACHE"] = "/dev/null/cache"
    ended = harness.run("--only", "sync")

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_kept_arm_that_is_damaged_is_told_before_anything_is_asked(harness: Harness) -> None:
    harness.run("--only", "sync", sync={"die": "no memory"})
    samples = harness.folder / "runs/small/arms/off/samples.jsonl"
    samples.write_text(samples.read_text()[:-40])
    ended = harness.run("--only", "sync", "--junit", "junit.xml")

    assert ended.returncode == 2
    assert "samples.jsonl" in ended.stderr and "--fresh" in ended.stderr
    assert "could not run" in (harness.folder / "junit.xml").read_text()


@pytest.fixture
def fill_disk(harness: Harness) -> Iterator[Callable[[int], subprocess.CompletedProcess[str]]]:
    """Runs with ``runs`` on a disk that has so many KiB left once the first server starts."""
    folder = harness.folder / "runs"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here: only root may")

    def fill(ballast: FileIO, folder: Path, left: int) -> None:
        with suppress(OSError):
            ballast.write(bytes(max(0, shutil.disk_usage(folder).free - left * 1024)))

    def run(left: int) -> subprocess.CompletedProcess[str]:
        few = ("--set", "tasks.gsm8k={name: gsm8k, questions: 20, fewshot: 20}")
        # A result that does not fit into what the server's record leaves.
        large = ("--set", f"serve.environment.NOTE={'x' * 8192}") if left == 0 else ()
        started = harness.start(*few, *large, seconds_to_start=3)
        log = folder / "small/arms/off/server.log"
        while not log.exists() and started.poll() is None:
            time.sleep(0.05)
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            fill(ballast, folder, left)
            while left == 0 and started.poll() is None:  # what is removed leaves room
                fill(ballast, folder, 0)
                time.sleep(0.01)
        output, errors = started.communicate(timeout=300)
        return subprocess.CompletedProcess(started.args, started.returncode, output, errors)

    yield run
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_disk_that_gets_full_in_the_middle_ends_a_run(
    harness: Harness, fill_disk: Callable[[int], subprocess.CompletedProcess[str]]
) -> None:
    # The result fits, the answers do not.
    ended = fill_disk(32)

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert harness.result()["verdict"] == "could not run"
    assert "samples.jsonl: No space left on device" in harness.result()["reasons"][0]


def test_a_result_that_finds_no_room_is_told_in_one_line(
    harness: Harness, fill_disk: Callable[[int], subprocess.CompletedProcess[str]]
) -> None:
    ended = fill_disk(0)

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith("result.json: No space left on device")
    assert "Traceback" not in ended.stderr
    assert not (harness.folder / "runs/small/result.json").exists()
