# SPDX-License-Identifier: Apache-2.0
"""What all tests share, in a run of pytest of its own."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SKIPPED = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_one(number):
    pytest.skip("needs a GPU")

@pytest.mark.skipif(True, reason="needs a GPU")
def test_two():
    pass

def test_three():
    pytest.skip("needs patience")

def test_four():
    pass
"""

INTERRUPTED = """
import os, signal, subprocess, pytest

@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_child_dies(name):
    number = getattr(signal, name)
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(number)
    assert child.wait() == -number

@pytest.mark.usefixtures("default_signals")
def test_this_process_is_interrupted():
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)

def test_others_are_as_before():
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
"""


HOMELESS = """
import datasets, pathlib

def test_datasets_are_kept_where_one_can_write():
    kept = pathlib.Path(datasets.config.HF_DATASETS_CACHE)
    kept.mkdir()
    print("kept in", kept)
"""

COLOURS = """
import os, rich.console

def test_a_console_writes_plain_text():
    assert not rich.console.Console().is_terminal
    assert "COLUMNS" not in os.environ
"""

GROUPED = """
import os, pytest
from vllm_eplb_plugin.releases import RELEASES

@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("release", RELEASES[:4], ids=lambda release: release.version)
def test_one(release, number):
    with open("ran", "a") as file:
        file.write(f"{release.version} {os.getpid()}\\n")
"""


def ignore_and_block() -> None:
    """As nohup and a script's background jobs do, and worse."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def run(folder: Path, test: str, **environment: str) -> list[str]:
    """The lines that pytest prints."""
    shutil.copy(CONFTEST, folder)
    (folder / "test_it.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "."],
        cwd=folder,
        env=os.environ | environment,
        preexec_fn=ignore_and_block,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


def test_what_did_not_run_is_counted_by_its_reason(tmp_path: Path) -> None:
    lines = run(tmp_path, SKIPPED)

    assert lines[-1].startswith("1 passed, 5 skipped")
    title, *reasons = lines[-4:-1]
    assert title.strip("= ") == "5 tests did not run"
    assert reasons == ["4: needs a GPU", "1: needs patience"]


def test_a_file_that_does_not_run_is_counted(tmp_path: Path) -> None:
    lines = run(tmp_path, 'import pytest\npytest.importorskip("nowhere", reason="needs nowhere")')

    assert "1: needs nowhere" in lines


def test_signals_act_although_who_started_the_tests_ignores_or_blocks_them(tmp_path: Path) -> None:
    lines = run(tmp_path, INTERRUPTED)

    assert lines[-1].startswith("5 passed"), "\n".join(lines)


def test_colours_and_width_of_the_user_s_terminal_are_not_those_of_tests(tmp_path: Path) -> None:
    lines = run(tmp_path, COLOURS, FORCE_COLOR="1", COLUMNS="20")

    assert lines[-1].startswith("1 passed"), "\n".join(lines)


def test_no_home_is_needed_and_nothing_is_left(tmp_path: Path) -> None:
    lines = run(tmp_path, HOMELESS, HOME="/dev/null", HF_HOME="/dev/null", PYTEST_ADDOPTS="-rP")

    assert lines[-1].startswith("1 passed"), "\n".join(lines)
    [kept] = [line.split()[-1] for line in lines if line.startswith("kept in ")]
    assert not Path(kept).parent.exists()


def test_in_two_processes_a_release_is_imported_by_one_of_them(tmp_path: Path) -> None:
    run(tmp_path, GROUPED, PYTEST_ADDOPTS="--numprocesses 2")

    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert len(ran) == 12
    assert len({process for _, process in ran}) == 2
    assert len({(release, process) for release, process in ran}) == 4


@pytest.mark.parametrize("whole", [True, False])
def test_a_whole_run_names_what_only_longer_runs_show(tmp_path: Path, whole: bool) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\n")
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_it.py").write_text("def test_it(): pass")
    command = [sys.executable, "-m", "pytest", *([] if whole else ["test_it.py"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert ("scripts/eval-controls" in done.stdout) is whole
