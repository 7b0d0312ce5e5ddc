# SPDX-License-Identifier: Apache-2.0
"""Runs whose arms are asked until their comparison is decided, against a stand-in for vLLM."""

from typing import Any

import pytest

from tests.builders.harness import Harness, gsm8k_task, small_config, write_gsm8k

ALL = 1319
CONFIG = small_config(
    tasks=[gsm8k_task(questions="enough", concurrency=16)],
    gate={"noise_floor": False, "margin_points": 3, "rearrangements": 5, "moe_layers": 4},
    arms=small_config()["arms"][:2],
)


@pytest.fixture
def harness(forked_harness: Harness) -> Harness:
    """With as many questions as GSM8K has."""
    folder = write_gsm8k(forked_harness.folder / "whole", ALL)
    forked_harness.environment["GSM8K_DIR"] = str(folder)
    return forked_harness


def asked(harness: Harness) -> list[int]:
    """Questions of each arm."""
    return [arm["tasks"][0]["questions"] for arm in harness.result()["arms"]]


def decision(harness: Harness) -> dict[str, Any]:
    """That of arm sync."""
    found: dict[str, Any] = harness.result()["arms"][1]["tasks"][0]["decision"]
    return found


def test_an_arm_stops_once_no_loss_is_decided_and_is_judged_alike_again(harness: Harness) -> None:
    ended = harness.run("--junit", "first.xml", config=CONFIG)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("gsm8k: asks 1319 questions in off; in every other arm at most")
    assert "arm sync: 200 questions in" in ended.stdout
    assert "gsm8k: no loss of 3 points after 200 of 1319 questions" in ended.stdout
    assert asked(harness) == [ALL, 200]
    assert decision(harness) == {
        "found": "no loss", "found_after": 200, "looks": 2, "at_most": ALL, "alpha": 0.01,
        "margin_points": 3.0,
    }  # fmt: skip
    off, sync = (arm["tasks"][0] for arm in harness.result()["arms"])
    # Sums are 3, 5, ...: the stand-in gets the multiples of five wrong.
    assert (off["accuracy"], sync["accuracy"]) == (pytest.approx(1055 / ALL), 0.8)
    assert sync["accuracy_stderr"] == pytest.approx((0.8 * 0.2 / 199) ** 0.5)
    assert sync["identical_to_off"] == 200

    again = harness.evaluate("gate", "runs/small", "--junit", "again.xml")
    assert again.returncode == 0, again.stdout + again.stderr
    first, second = ((harness.folder / name).read_text() for name in ("first.xml", "again.xml"))
    assert first == second


def test_an_arm_stops_at_once_where_a_loss_is_shown_also_among_servers_that_start_together(
    harness: Harness,
) -> None:
    sums = [total for total in range(3, 203, 6) if total % 5]
    ended = harness.run("--servers-at-once", "2", config=CONFIG, sync={"wrong_sums": sums})

    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "gsm8k: a loss after 100 of 1319 questions" in ended.stdout
    assert asked(harness) == [ALL, 100]
    assert decision(harness)["found"] == "loss"
    assert harness.evaluate("gate", "runs/small").returncode == 1


def test_an_arm_goes_on_until_enough_rearrangements_finished(harness: Harness) -> None:
    ended = harness.run("--set", "gate.rearrangements=140", config=CONFIG)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    # Two questions a rearrangement.
    assert asked(harness) == [ALL, 300]
    assert (decision(harness)["found_after"], decision(harness)["looks"]) == (200, 3)


def test_a_run_that_stopped_in_the_middle_goes_on_with_the_answers_of_off(
    harness: Harness,
) -> None:
    broken = harness.run(config=CONFIG, sync={"exit_after": 150})
    assert broken.returncode == 2
    assert asked(harness) == [ALL]

    ended = harness.run(config=CONFIG)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "arm off: finished before, not asked again" in ended.stdout
    assert asked(harness) == [ALL, 200]


def test_fewer_questions_than_the_test_set_has_are_refused_before_anything_starts(
    harness: Harness,
) -> None:
    harness.environment["GSM8K_DIR"] = str(harness.folder / "gsm8k")
    ended = harness.run(config=CONFIG)

    assert ended.returncode == 2
    assert (
        "tasks.gsm8k.questions is enough, 1319 at most, and there are 20: set it to null for all"
        in ended.stderr
    )
    assert not (harness.folder / "runs").exists()
