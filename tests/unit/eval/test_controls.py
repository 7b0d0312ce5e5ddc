# SPDX-License-Identifier: Apache-2.0
"""Which faults count as noticed, and by what."""

from typing import Any

import pytest

from eval.config.schema import Config
from eval.errors import ConfigError
from eval.judging.controls import Controls, add_controls, judge_controls
from tests.builders.arms import QUESTIONS, sample, samples
from tests.builders.harness import gsm8k_task, small_config
from tests.builders.run_to_judge import Run, gate

LOOPBACK = {"loopback": True, "check_weights": True}
CONTROL = "control-weights_not_moved"


def loopback_config(**changes: Any) -> Config:
    return Config.model_validate(small_config(**{"plugin": LOOPBACK, **changes}))


def test_a_control_is_the_first_arm_with_eplb_and_a_fault() -> None:
    config = add_controls(loopback_config(), ["no_rearrangement", "weights_not_moved"])

    assert [arm.name for arm in config.arms[3:]] == [CONTROL, "control-no_rearrangement"]
    control = config.arms[3]
    assert control.eplb == config.arms[1].eplb
    assert config.plugin_settings(control) == {**LOOPBACK, "fault": "weights_not_moved"}
    assert len(add_controls(loopback_config(), ["all"]).arms) == 3 + 7
    in_async = add_controls(loopback_config(controls={"arm": "async"}), ["no_rearrangement"])
    assert in_async.arms[3].eplb == in_async.arms[2].eplb


def test_a_control_is_asked_few_questions_of_each_task() -> None:
    tasks = [gsm8k_task(questions=None), gsm8k_task(name="gsm_tiny", questions=5)]
    config = add_controls(loopback_config(tasks=tasks, controls={"questions": 7}), ["all"])

    assert [task.questions for task in config.tasks_of(config.arms[1])] == [None, 5]
    assert [task.questions for task in config.tasks_of(config.arms[3])] == [7, 5]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("weights_moved", {}, "no such control, the nearest is weights_not_moved"),
        ("all", {"plugin": {}}, "in loopback only"),
        ("all", {"plugin": None}, "in loopback only"),
        ("all", {"arms": [{"name": "off"}]}, "there is no such arm with EPLB: the arms are off"),
        ("all", {"controls": {"arm": "off"}}, "the EPLB of arm 'off', and there is no such arm"),
    ],
)
def test_a_configuration_that_cannot_have_the_control_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        add_controls(loopback_config(**changes), [name])

    assert message in str(error.value)


class ControlledRun(Run):
    """A run in which all is well, with one control."""

    def __init__(self, **config: Any) -> None:
        arms = small_config()["arms"]
        control = {**arms[1], "name": CONTROL}
        super().__init__(**{"arms": [*arms, control], "controls": {"rearrangements": 3}, **config})
        self.change(CONTROL, modes=["sync"])

    def controls(self) -> Controls:
        return judge_controls(self.config, self.arms(), self.recorded)

    def rule(self) -> tuple[str, str]:
        [rule] = self.controls().rules
        assert (rule.rule, rule.arm) == ("control", CONTROL)
        return rule.verdict, rule.saw


def test_a_fault_that_nothing_notices_fails() -> None:
    run = ControlledRun()

    [result] = run.controls().results
    assert (result.name, result.caught, result.caught_by) == ("weights_not_moved", False, [])
    assert run.rule() == ("failed", "not caught: it passes every rule that arm sync passes")


@pytest.mark.parametrize(
    ("changes", "rule", "saw"),
    [
        ({"weight_mismatches": 7}, "weights", "7 of 100 checked slots"),
        ({"map_mismatches": 5}, "maps", "5 of 100 checked experts"),
        ({"placements_rejected": 2}, "no_rejected_placements", "2 placements"),
        ({"rearrangements": 2}, "rearrangements", "2 rearrangements finished"),
        ({"slots_changed": [4, 0, 4, 4]}, "slots_changed", "no slot changed in MoE layer 1"),
    ],
)
def test_a_fault_is_caught_by_the_rule_that_does_not_pass(
    changes: dict[str, Any], rule: str, saw: str
) -> None:
    run = ControlledRun().change(CONTROL, **changes)

    [result] = run.controls().results
    assert (result.caught, result.caught_by) == (True, [rule])
    assert saw in result.saw[0]
    assert run.rule() == ("passed", f"caught by {rule}")
    assert run.bad() == []


def test_a_different_answer_catches_it_and_the_accuracy_is_told() -> None:
    run = ControlledRun()
    run.answers[CONTROL] = samples(q3="other")
    [task] = run.runs[CONTROL].tasks
    run.change(CONTROL, tasks=[task.model_copy(update={"accuracy": 0.25})])

    [result] = run.controls().results
    assert (result.caught_by, result.accuracy) == (["identical_answers"], 0.25)


def test_what_the_sound_arm_does_not_show_either_catches_nothing() -> None:
    run = ControlledRun()
    for name in ("sync", CONTROL):
        run.change(name, rearrangements=2, weight_checks=0)

    assert run.rule()[0] == "failed"


def test_fewer_rearrangements_and_questions_are_enough_for_a_control() -> None:
    run = ControlledRun(controls={"rearrangements": 3, "questions": 6}, gate=gate(margin_points=1))
    [task] = run.runs[CONTROL].tasks
    kept = {"questions": 6, "task_hash": "of six"}
    run.change(CONTROL, rearrangements=4, tasks=[task.model_copy(update=kept)])
    run.answers[CONTROL] = samples()[:6]
    # Of no concern: the control was not asked that.
    run.answers["sync"] = samples(q9="other")

    assert run.rule()[0] == "failed"
    run.answers[CONTROL] = samples(q5="other")[:6]
    assert run.rule() == ("passed", "caught by identical_answers")


def test_a_shown_loss_catches_it_although_so_few_questions_exclude_none() -> None:
    few = gate(identical=False, noise_floor=False, margin_points=1)
    run = ControlledRun(gate=few)
    for name in run.answers:
        run.answers[name] = [sample(number, correct=name != CONTROL) for number in range(QUESTIONS)]

    assert run.rule() == ("passed", "caught by paired_accuracy")


def test_a_control_that_was_asked_something_else_tells_nothing() -> None:
    run = ControlledRun()
    run.answers[CONTROL] = [one.model_copy(update={"prompt_hash": "x"}) for one in samples()]

    verdict, saw = run.rule()
    assert verdict == "not tested" and "other questions or prompts than arm off" in saw
    assert [result.caught for result in run.controls().results] == [False]


def test_a_control_without_a_sound_arm_beside_it_tells_nothing() -> None:
    run = ControlledRun(controls={"arm": "gone"})

    assert run.rule() == ("not tested", "an arm with EPLB and without a fault is missing")
