# SPDX-License-Identifier: Apache-2.0
"""What `vllm-eplb explain` says of the overrides."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from vllm_eplb_plugin.faults.by_name import FAULTS


def explain(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vllm_eplb_plugin.cli", "explain", *options],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def explained(*options: str) -> list[dict[str, Any]]:
    done = explain("--json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_every_kind_is_told_with_its_reason_its_room_and_its_end() -> None:
    found = explained()
    assert {one["kind"] for one in found} == {"replace", "hook", "pretend", "break"}
    assert all(one["fixes"] and one["delete_when"] and one["room"] for one in found)
    for one in found:
        room = one["room"].split(".")[0]
        assert (one["kind"] == "pretend") <= (room in ("loopback", "front_end"))
        assert (one["kind"] == "break") == (room == "faults")
    told = {one["bound_when"] for one in found}
    assert {f"the setting fault is {name}" for name in FAULTS} <= told


def test_a_release_of_the_table_gets_its_own() -> None:
    rooms = {one["room"] for one in explained("--release", "0.18.1", "--kind", "replace")}
    assert "engine.v018" in rooms
    rooms = {one["room"] for one in explained("--release", "0.33.0")}
    assert "engine.v018" not in rooms


def test_the_text_fits_the_terminal_and_names_each_target() -> None:
    done = explain("--kind", "hook")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for one in explained("--kind", "hook"):
        assert one["target"] in done.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--release", "0.17.0"], "--release 0.17.0: not among 0.18.0, 0.18.1"),
        (["--kind", "swap"], "--kind swap: not among replace, hook, pretend, break"),
    ],
)
def test_what_there_is_not_is_named(options: list[str], message: str) -> None:
    done = explain(*options)
    assert done.returncode == 2
    assert message in done.stderr
