# SPDX-License-Identifier: Apache-2.0
"""``python -m eval.latency`` and ``python -m eval.stress``, as real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.harness import REPOSITORY

FORMER = ["latency", "stress"]


def call(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_helps_as_the_new_one_and_names_it(name: str, tmp_path: Path) -> None:
    former, new = call(tmp_path, f"eval.{name}", "--help"), call(tmp_path, "eval", name, "--help")
    assert (former.returncode, former.stdout) == (0, new.stdout)
    assert f"python -m eval.{name} is called python -m eval {name} now" in former.stderr
    assert f"Usage: python -m eval {name}" in former.stdout


REFUSED = {
    "latency": (["--gpus", "0", "--experts", "8", "--redundant", "3"], "11 slots"),
    "stress": (["nowhere.yaml"], "nowhere.yaml"),
}


@pytest.mark.parametrize("name", FORMER)
def test_options_and_exit_codes_of_a_former_name_are_the_new_one_s(
    name: str, tmp_path: Path
) -> None:
    options, said = REFUSED[name]
    for arguments in (options, ["--no-such-option"]):
        former, new = (
            call(tmp_path, *words, *arguments) for words in ([f"eval.{name}"], ["eval", name])
        )
        assert former.returncode == new.returncode == 2
        assert former.stderr.endswith(new.stderr)
    assert said in call(tmp_path, f"eval.{name}", *options).stderr
