# SPDX-License-Identifier: Apache-2.0
"""Arms with a fault put in on purpose, and whether the gate notices it (docs/controls.md)."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple, get_args

from eval.config.control_arms import CONTROL_PREFIX, is_control
from eval.config.schema import Arm, Config, Task, TaskName
from eval.errors import ConfigError
from eval.judging.arms import ArmToJudge, first_questions, outcome
from eval.judging.recorded import recorded_accuracies
from eval.judging.verdict import Recorded, arm_rules, judge_run
from eval.results.oracle_result import OracleResult
from eval.results.schema import ControlResult, RuleResult
from vllm_eplb_plugin.fault_settings import Wrong

ALL = "all"

# When these do not pass, arms cannot be compared, and nothing is known of the fault.
_COMPARABLE = ("same_questions", "all_answered")


def add_controls(config: Config, names: Sequence[str]) -> Config:
    """Add an arm for each control: one with EPLB again, with a fault.

    Args:
        config: Has `Config.controls`, which says whose EPLB it is.
        names: Of `Wrong`, the faults that a check has to notice, or ``all``.

    Raises:
        ConfigError: There is no such control, or this configuration cannot have any.
    """
    known = get_args(Wrong)
    for name in names:
        if name not in (*known, ALL):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"--control {name}: no such control, the nearest is {nearest} "
                f"(valid: {', '.join(known)}, {ALL})"
            )
    if (config.plugin or {}).get("loopback") is not True:
        raise ConfigError(
            "--control breaks EPLB on purpose, which the plugin does in loopback only: take "
            "eval/config/presets/cpu.yaml, or set plugin.loopback to true"
        )
    base = control_base(config)
    if base is not None and base.url is not None:
        raise ConfigError(
            f"--control starts a server with a fault, and the EPLB that it breaks is that of arm "
            f"{base.name}, which runs elsewhere: set controls.arm to one without a url"
        )
    if base is None:
        which = f"arm {config.controls.arm!r}" if config.controls.arm else "some arm that it starts"
        raise ConfigError(
            f"--control breaks the EPLB of {which}, and there is no such arm with EPLB: the arms "
            f"are {', '.join(arm.name for arm in config.arms)}"
        )
    wanted = known if ALL in names else [name for name in known if name in names]
    added = [
        Arm(name=f"{CONTROL_PREFIX}{name}", eplb=base.eplb, plugin={**base.plugin, "fault": name})
        for name in wanted
    ]
    taken = {arm.name for arm in config.arms} & {arm.name for arm in added}
    if taken:
        raise ConfigError(f"--control: there already is an arm {', '.join(sorted(taken))}")
    return config.model_copy(update={"arms": [*config.arms, *added]})


def control_base(config: Config) -> Arm | None:
    """The arm whose EPLB the controls break, and which has to pass where they do not.

    Unless one is named, it is the first with EPLB whose server the harness starts.
    """
    for arm in config.arms:
        sound = arm.eplb is not None and not is_control(arm.name)
        wanted = arm.url is None if config.controls.arm is None else arm.name == config.controls.arm
        if sound and wanted:
            return arm
    return None


class Controls(NamedTuple):
    """What became of all controls of a run."""

    results: list[ControlResult]
    rules: list[RuleResult]
    """One for each; failed where the fault went unnoticed."""


def judge_controls(config: Config, arms: Sequence[ArmToJudge], recorded: Recorded) -> Controls:
    """Apply to each control the rules that every arm with EPLB has to pass.

    A control is caught when a rule does not pass that does pass in the arm whose EPLB was broken,
    judged by the same questions: a rule that few questions cannot satisfy shows no fault.

    Args:
        config: As `add_controls` made it, or with arms of such names of its own.
        arms: All of the run, ``off`` first.
        recorded: Recorded accuracies.
    """
    controls = [arm for arm in arms if is_control(arm.name)]
    if not controls:
        return Controls([], [])
    gate = config.gate.model_copy(
        update={"rearrangements": config.controls.rearrangements, "margin_points": None}
    )
    sound = control_base(config)
    tasks = [_asked_of(arms, sound, task) for task in config.control_tasks()]
    most: dict[TaskName, int | None] = {task.name: task.limit for task in tasks}
    shorter = config.model_copy(update={"tasks": tasks, "gate": gate})
    off = first_questions(arms[0], most)

    def rules_of(arm: ArmToJudge) -> list[RuleResult]:
        return arm_rules(shorter, off, first_questions(arm, most), [], recorded)

    base = next((rules_of(arm) for arm in arms if sound and arm.name == sound.name), [])
    passing = {(rule.rule, rule.task) for rule in base if rule.verdict == "passed"}
    found = Controls([], [])
    for arm in controls:
        rules = rules_of(arm)
        result = _result(arm, rules, passing)
        found.results.append(result)
        found.rules.append(_rule(result, rules, sound))
    return found


def judge_with_controls(
    config: Config, arms: Sequence[ArmToJudge], oracle: OracleResult | None
) -> tuple[list[RuleResult], list[ControlResult]]:
    """Judge a whole run and its controls: every rule, and what became of each control."""
    recorded = recorded_accuracies(config)
    controls = judge_controls(config, arms, recorded)
    return [*judge_run(config, arms, oracle, recorded), *controls.rules], controls.results


def _asked_of(arms: Sequence[ArmToJudge], sound: Arm | None, task: Task) -> Task:
    """The task with no more questions than the sound arm had, which may have stopped sooner."""
    found = next((arm for arm in arms if sound and arm.name == sound.name), None)
    run = next((run for run in found.run.tasks if run.name == task.name), None) if found else None
    if run is None or run.decision is None:
        return task
    return task.model_copy(update={"questions": min(run.questions, task.limit or run.questions)})


def _result(
    control: ArmToJudge, rules: Sequence[RuleResult], passing: set[tuple[str, str | None]]
) -> ControlResult:
    noticed = [
        rule
        for rule in rules
        if rule.verdict != "passed"
        and (rule.rule, rule.task) in passing
        and rule.rule not in _COMPARABLE
    ]
    accuracies = [task.accuracy for task in control.run.tasks if task.scored]
    return ControlResult(
        name=control.name.removeprefix(CONTROL_PREFIX),
        caught=bool(noticed),
        caught_by=list(dict.fromkeys(rule.rule for rule in noticed)),
        saw=[rule.saw for rule in noticed],
        accuracy=next(iter(accuracies), None),
    )


def _rule(result: ControlResult, rules: Sequence[RuleResult], base: Arm | None) -> RuleResult:
    sound = f"arm {base.name}" if base else "an arm with EPLB and without a fault"
    incomparable = [
        rule.saw for rule in rules if rule.rule in _COMPARABLE and rule.verdict != "passed"
    ]
    caught: bool | None
    if base is None:
        caught, saw = None, f"{sound} is missing"
    elif result.caught:
        caught, saw = True, f"caught by {', '.join(result.caught_by)}"
    elif incomparable:
        caught, saw = None, incomparable[0]
    else:
        caught, saw = False, f"not caught: it passes every rule that {sound} passes"
    return outcome(
        "control",
        caught,
        saw,
        limit=f"a rule that {sound} passes, judged by the same questions, must not pass",
        detectable="a gate that does not notice this fault",
        arm=f"{CONTROL_PREFIX}{result.name}",
    )
