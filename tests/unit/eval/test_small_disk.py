# SPDX-License-Identifier: Apache-2.0
"""A folder that is soon full, also of a harness that was killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from eval.errors import ServerError
from eval.serving.small_disk import small_disk, unmount_left

CODE = """
import os, signal, sys
from pathlib import Path
from eval.serving.small_disk import small_disk
with small_disk(Path(sys.argv[1]), 64):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def can_mount(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "tried", 64):
            pass
    except (ServerError, FileNotFoundError):
        pytest.skip("no tmpfs can be mounted here: only root may")


def test_what_a_killed_harness_has_mounted_is_unmounted(tmp_path: Path) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (runs, elsewhere):
        folder.mkdir()
        killed = subprocess.run([sys.executable, "-c", CODE, str(folder / "events")], timeout=120)
        assert killed.returncode == -9
        assert (folder / "events").is_mount()
    assert unmount_left(runs) == [runs / "events"]
    assert not (runs / "events").is_mount()
    assert (elsewhere / "events").is_mount()
    assert unmount_left(elsewhere) == [elsewhere / "events"]


def test_one_in_use_stays_and_what_is_in_it_is_kept(tmp_path: Path) -> None:
    events = tmp_path / "events"
    with small_disk(events, 64):
        (events / "rank0.jsonl").write_text("{}\n")
        assert unmount_left(tmp_path) == []
        assert events.is_mount()
    assert not events.is_mount()
    assert (events / "rank0.jsonl").read_text() == "{}\n"
