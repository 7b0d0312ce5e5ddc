# SPDX-License-Identifier: Apache-2.0
"""An exit code of 1 says that something failed, and nothing else says 1."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.harness import REPOSITORY, Harness, small_config

TABLE = "| questions | flips |"


def shell(
    text: str, folder: Path = REPOSITORY, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """In bash with ``eval`` for ``python -m eval``; its exit code is that of a pipe's first."""
    start = f'eval_() {{ PYTHONPATH="{REPOSITORY}" "{sys.executable}" -m eval "$@"; }}; '
    return subprocess.run(
        [
            "env",
            *(f"{name}={value}" for name, value in variables.items()),
            "bash",
            "-c",
            start + text,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("eval_ power", 0),
        ("eval_ power > /dev/full", 2),
        ("eval_ power >&-", 2),
        ("eval_ power | true; exit ${PIPESTATUS[0]}", 2),
        ("eval_ power 2>&-", 0),
        ("eval_ power 2> /dev/full", 0),
        ("eval_ power <&-", 0),
        ("eval_ nonsense", 2),
        ("eval_ nonsense 2>&-", 2),
        ("eval_ nonsense >&- 2>&- <&-", 2),
        ("eval_ power --margin many 2> /dev/full", 2),
        ("eval_ run nonsense", 2),
        ("eval_ run nonsense >&- 2>&-", 2),
        ("eval_ gate nowhere | true; exit ${PIPESTATUS[0]}", 2),
        ("eval_ report nowhere", 2),
        ("eval_ report / --html /dev/full", 2),
        ("eval_ gate nowhere --junit /dev/full", 2),
        ("eval_ latency --arm nonsense", 2),
        ("eval_ stress nonsense", 2),
    ],
)
def test_whatever_keeps_a_command_from_its_end_is_exit_code_2(command: str, code: int) -> None:
    done = shell(command)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_an_output_that_knows_ascii_only_gets_all_the_same_what_there_is(
    harness: Harness, variables: dict[str, str]
) -> None:
    harness.environment |= variables
    done = harness.run(config=small_config(model="\u00fcber/\u6a21\u578b"), command="check")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "\\xfcber" in done.stdout


def test_a_file_is_not_given_what_is_printed_on_a_closed_output(tmp_path: Path) -> None:
    """The first file that is opened would get the number of the closed stream."""
    done = shell("eval_ run nonsense >&- 2>&-; echo code $? > code", tmp_path)

    assert (tmp_path / "code").read_text() == "code 2\n", done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]


def test_a_run_keeps_its_verdict_where_nobody_reads_what_it_prints(harness: Harness) -> None:
    run = harness.run(config=small_config())
    assert run.returncode == 0
    # Nor does git complain that this is no checkout.
    assert run.stderr.splitlines() == [
        "looking at the server's environment: vllm-eplb doctor imports its vLLM",
        *(f"arm {name}: starting the server" for name in ("off", "sync", "async")),
    ]
    with Path("/dev/full").open("w") as full:
        passed = subprocess.run(
            [sys.executable, "-m", "eval", "gate", "runs/small"],
            cwd=harness.folder,
            env=harness.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )

    assert (passed.returncode, passed.stderr) == (0, "")
