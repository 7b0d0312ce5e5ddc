# SPDX-License-Identifier: Apache-2.0
"""Runs with negative controls, from the command line to the verdict."""

from typing import Any

import pytest

from tests.builders.harness import Harness, small_config


@pytest.fixture
def harness(forked_harness: Harness) -> Harness:
    """Its runs come to their end by themselves."""
    return forked_harness


LOOPBACK = {"loopback": True, "check_weights": True}
CONTROL = "control-weights_not_moved"
FAULTY: dict[str, Any] = {
    "weights_not_moved": {"wrong_sums": [7, 9, 11], "mismatched_slots": [3]},
    "replica_count_off_by_one": {},
}


def test_a_run_with_controls_passes_only_if_all_are_caught(harness: Harness) -> None:
    harness.install(on_cpu=True)
    config = small_config(plugin=LOOPBACK, controls={"questions": 10, "rearrangements": 4})
    options = ["--only", "sync", "--control", "weights_not_moved"]
    caught = harness.run(*options, config=config, **FAULTY)

    assert caught.returncode == 0, caught.stdout + caught.stderr
    [control] = harness.result()["controls"]
    assert control["caught_by"] == ["weights", "identical_answers"]
    assert control["accuracy"] == pytest.approx(5 / 10)
    arms = {arm["name"]: arm["tasks"][0]["questions"] for arm in harness.result()["arms"]}
    assert arms == {"off": 12, "sync": 12, CONTROL: 10}
    assert "weights_not_moved" in caught.stdout

    more = [*options, "--control", "replica_count_off_by_one"]
    missed = harness.run(*more, config=config, **FAULTY)

    assert missed.returncode == 1
    assert harness.result()["verdict"] == "failed"
    assert "control, arm control-replica_count_off_by_one: not caught" in missed.stdout


def test_controls_outside_loopback_are_refused_before_anything_starts(harness: Harness) -> None:
    ended = harness.run("--control", "all")

    assert ended.returncode == 2
    assert "in loopback only" in ended.stderr
    assert not (harness.folder / "runs").exists()
