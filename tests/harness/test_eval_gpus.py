# SPDX-License-Identifier: Apache-2.0
"""``scripts/eval-gpus``, with a stand-in for Python that notes how it was called."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.builders.waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "scripts" / "eval-gpus"
# What it notes says that it is ready for a signal.
STAND_IN = """#!/usr/bin/env bash
for signal in INT TERM HUP; do
    trap "echo $signal >> '$NOTES'; kill \\$!; exit 2" $signal
done
sleep "$SECONDS_EACH" &
echo "$@" >> "$NOTES"
wait
[[ $* == *--name\\ gpus-$FAILS* ]] && exit 1 || exit 0
"""


class Script:
    """The script with its stand-in; what it writes is below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def start(self, *options: str, fails: str = "none", each: str = "0") -> "subprocess.Popen[str]":
        environment = {"PYTHON": str(self.python), "NOTES": str(self.notes)}
        environment |= {"FAILS": fails, "SECONDS_EACH": each}
        return subprocess.Popen(
            [SCRIPT, *options], env=os.environ | environment, stderr=subprocess.PIPE, text=True
        )

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_both_dtypes_get_the_options_and_their_gate(script: Script) -> None:
    assert script.start("--only", "sync").wait(20) == 0

    first, second = script.noted()
    assert "--name gpus-float32 --set serve.options.dtype=float32" in first
    assert first.endswith("--gate ci/gates/gsm-tiny-gpu.yaml --only sync")
    assert "--name gpus-bfloat16 --set serve.options.dtype=bfloat16" in second
    assert second.endswith("--gate ci/gates/gsm-tiny-gpu-bfloat16.yaml --only sync")


@pytest.mark.parametrize("fails", ["float32", "bfloat16"])
def test_one_that_fails_is_enough(script: Script, fails: str) -> None:
    assert script.start(fails=fails).wait(20) == 1
    assert len(script.noted()) == 2


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_the_script(script: Script, sent: signal.Signals) -> None:
    process = script.start(each="60")
    wait_until(script.noted, 20)
    process.send_signal(sent)

    assert process.wait(20) == 2
    assert script.noted()[1:] == [sent.name.removeprefix("SIG")]


@pytest.mark.parametrize("options", [("--junit", "one.xml"), ("--junit=one.xml",)])
def test_one_junit_file_for_two_runs_is_refused(script: Script, options: tuple[str, ...]) -> None:
    process = script.start(*options)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 2
    assert "--junit=one.xml: there are two runs and a file for each" in errors
    assert script.noted() == []


def test_a_folder_for_junit_files_is_passed_on(script: Script, tmp_path: Path) -> None:
    assert script.start("--junit", str(tmp_path)).wait(20) == 0
    assert all(line.endswith(f"--junit {tmp_path}") for line in script.noted())


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(0, 0, 0), (0, 3, 3), (3, 0, 3), (1, 3, 1), (3, 1, 1), (1, 2, 2), (2, 0, 2), (127, 0, 2)],
)
def test_the_exit_code_is_the_worse_of_the_two(
    script: Script, first: int, second: int, code: int
) -> None:
    script.python.write_text(
        f"#!/bin/sh\ncase $* in *gpus-float32*) exit {first};; *) exit {second};; esac\n"
    )

    assert script.start().wait(20) == code


@pytest.mark.parametrize(
    "command",
    [["eval-gpus", "--config"], ["eval-cpu", "--vllm"], ["eval-cpu", "--vllm", "--quick"]],
)
def test_an_option_without_its_value_is_exit_code_2(command: list[str]) -> None:
    name, *options = command
    ended = subprocess.run([SCRIPT.with_name(name), *options], capture_output=True, text=True)

    assert ended.returncode == 2
    assert " needs " in ended.stderr
