# SPDX-License-Identifier: Apache-2.0
"""A run that cannot pass, whatever is answered, says so before a server starts."""

from typing import Any

import pytest

from eval.commands.foreseen import foreseen
from eval.config.find import find_config, preset_names
from eval.config.loading import load_config
from eval.config.schema import Config
from tests.builders.harness import gsm8k_task, small_config

GATE = small_config()["gate"]
OFF, SYNC, ASYNC = small_config()["arms"]
AGAIN = {"name": "off-again"}
OTHER_SETTINGS = {"name": "without-checks", "plugin": {"check_weights": False}}
MAY_DIFFER = {**GATE, "identical": False}


def of(**changes: Any) -> list[str]:
    return [*foreseen(Config.model_validate(small_config(**changes)))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate": MAY_DIFFER, "arms": [OFF, SYNC, AGAIN]},
        {"gate": {**MAY_DIFFER, "noise_floor": False}},
        {"gate": {**GATE, "margin_points": None}, "tasks": [gsm8k_task(questions=1)]},
        {"gate": {**GATE, "margin_points": 3}, "tasks": [gsm8k_task(questions=None)]},
    ],
)
def test_nothing_where_the_answers_decide(changes: dict[str, Any]) -> None:
    assert of(**changes) == []


@pytest.mark.parametrize("arms", [[OFF, SYNC, ASYNC], [OFF, SYNC, OTHER_SETTINGS]])
def test_answers_that_may_differ_without_a_repeat_of_off(arms: list[dict[str, Any]]) -> None:
    [line] = of(gate=MAY_DIFFER, arms=arms)
    assert line.startswith("no arm repeats arm off; it takes one arm without eplb")
    assert "such as off-again; or gate.noise_floor: false" in line


def test_no_arm_with_eplb() -> None:
    [line] = of(arms=[OFF, AGAIN])
    assert line.startswith("no arm with EPLB was asked")


def test_fewer_questions_than_could_exclude_the_margin() -> None:
    gate = {**GATE, "margin_points": 3}
    [line] = of(gate=gate, tasks=[gsm8k_task(questions=98)])
    assert line.startswith("gsm8k: 98 questions exclude no loss below 3.01 points")
    assert of(gate=gate, tasks=[gsm8k_task(questions=99)]) == []


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_pass(name: str) -> None:
    assert [*foreseen(load_config(find_config(name)))] == []


def test_a_preset_of_fewer_arms_may_not() -> None:
    [line] = foreseen(load_config(find_config("gsm-mid"), only=["sync"]))
    assert line.startswith("no arm repeats arm off")
    assert [*foreseen(load_config(find_config("one-gpu"), only=["sync"]))] == []
