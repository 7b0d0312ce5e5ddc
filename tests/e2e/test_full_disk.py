# SPDX-License-Identifier: Apache-2.0
"""A server whose events and recording find no room, and then no folder."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from safetensors import safe_open

from eval.serving.server import Server
from tests.e2e.conftest import events_of, serving
from vllm_eplb_plugin.recording.reader import read_recordings

ASYNC = {"name": "async", "eplb": {"use_async": True, "window_size": 10, "step_interval": 10}}
DROPPED = "EPLB events are dropped, and counted where they can be written again"
LOST = "EPLB load windows are lost, and counted in the recording where it can be written again"
REARRANGING = "Rearranging experts (async mode)"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("no tmpfs can be mounted here: only root may")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that leaves no byte."""
    ballast = folder / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def lost_windows(recording: Path) -> int:
    """What the newest file of a recording says; 0: there is none yet."""
    for file in sorted(recording.glob("*/*.safetensors"))[-1:]:
        with safe_open(file, "numpy") as opened:
            return int(opened.metadata()["lost"])
    return 0


def ask(server: Server) -> str:
    question = {"prompt": "Tom has 3 apples and buys 4 more.", "max_tokens": 48, "ignore_eos": True}
    response = httpx.post(
        f"{server.url}/v1/completions",
        json={**question, "temperature": 0},
        timeout=120,
        trust_env=False,
    )
    text: str = response.raise_for_status().json()["choices"][0]["text"]
    return text


def test_answers_and_rearrangements_go_on_and_the_log_says_it_once(
    small_disk: Path, tmp_path: Path
) -> None:
    folder, recording = small_disk / "events", small_disk / "recording"
    files = [folder / f"rank{rank}.jsonl" for rank in range(2)]
    plugin = {"recording": {"dir": str(recording)}}
    with serving(tmp_path, {**ASYNC, "plugin": plugin}, folder) as server:
        answers = {ask(server)}

        def ask_until(condition: Callable[[], bool]) -> None:
            for _ in range(30):
                answers.add(ask(server))
                if condition():
                    return
            pytest.fail(server.log.read_text()[-4000:])

        def count(text: str) -> int:
            return server.log.read_text().count(text)

        ask_until(lambda: all(map(events_of, files)))
        ballast = fill(small_disk)
        ask_until(lambda: count(DROPPED) == 2 and count(LOST) == 1)
        begun = count(REARRANGING)
        ask_until(lambda: count(REARRANGING) >= begun + 10)
        # Out of the way first: the server may make the folder again while it is being emptied.
        away = folder.rename(small_disk / "away")
        shutil.rmtree(away)
        ballast.unlink()
        kinds = ("events_dropped", "rearrangement_finished", "weights_checked")
        ask_until(lambda: all({e["event"] for e in events_of(file)} >= {*kinds} for file in files))
        ask_until(lambda: lost_windows(recording) > 0)
        assert (count(DROPPED), count(LOST)) == (2, 1)
        assert count("No space left on device") == 3
    assert len(answers) == 1
    [recorded] = read_recordings(recording)
    [warning] = recorded.warnings
    assert recorded.windows and "windows could not be written until then" in warning
    for file in files:
        first, *later = events_of(file)
        assert first["event"] == "events_dropped"
        assert first["number"] > 10
        assert min(e["rearrangement"] for e in later if "rearrangement" in e) > 10
        assert all(e["mismatched_slots"] == [] for e in later if e["event"] == "weights_checked")
