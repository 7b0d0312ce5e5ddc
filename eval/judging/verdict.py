# SPDX-License-Identifier: Apache-2.0
"""From the arms of a run to the results of its rules, and from those to a verdict (docs/gates.md).

Pure functions. The rules themselves are in `eval.judging.question_rules`,
`eval.judging.answer_rules` and `eval.judging.activity_rules`.
"""

from collections.abc import Iterator, Mapping, Sequence

from eval.config.control_arms import without_controls
from eval.config.gate_section import Gate
from eval.config.schema import Config, TaskName
from eval.judging import activity_rules as evidence
from eval.judging import answer_rules as accuracy
from eval.judging import enough_rules as enough
from eval.judging import question_rules as asked_rules
from eval.judging.answer_rules import Comparison
from eval.judging.arms import ArmToJudge, is_repeat
from eval.judging.equality_rules import exact_answers, oracle_answers
from eval.judging.movement_rules import fewer_bytes
from eval.judging.recorded import RecordedAccuracy
from eval.results.oracle_result import OracleResult
from eval.results.schema import RuleResult, Verdict

Recorded = Mapping[TaskName, RecordedAccuracy | None]
"""For each scored task, what `eval.judging.recorded.recorded_accuracy` found."""


def judge_run(
    config: Config,
    arms: Sequence[ArmToJudge],
    found: OracleResult | None,
    recorded: Recorded,
) -> list[RuleResult]:
    """Apply every rule to a whole run.

    Args:
        config: Tasks, gate and oracle.
        arms: All that are finished, ``off`` first. Arms of controls are left out.
        found: The comparison with transformers, if there was one.
        recorded: Recorded accuracies.
    """
    off, *others = without_controls(arms)
    results = [asked_rules.all_answered(task, off, off) for task in config.tasks]
    results += evidence.evidence(config.gate, off)
    prompts = min(config.oracle.prompts, off.run.tasks[0].questions)
    if prompts:
        results.append(oracle_answers(found, prompts))
    repeats = [
        repeat
        for repeat in repeats_of_off(arms)
        if verdict(_asked(config, off, repeat)) != "invalid"
    ]
    gate = config.gate
    with_eplb = sum(arm.eplb is not None for arm in others)
    results += untested(gate, len(others), with_eplb, len(repeats))
    comparable = []
    for arm in others:
        found_in_arm = arm_rules(config, off, arm, repeats, recorded)
        results += found_in_arm
        if verdict(found_in_arm) != "invalid":
            comparable.append(arm)
    results += fewer_bytes(gate, comparable)
    if gate.recorded_accuracy:
        results += _recorded_accuracy(config, off, off, comparable, recorded)
    return results


def untested(gate: Gate, others: int, with_eplb: int, repeats: int) -> Iterator[RuleResult]:
    """What a run's arms cannot show, whatever they answer.

    Args:
        gate: What has to be shown.
        others: Arms beside ``off``, without those of controls.
        with_eplb: How many of them have EPLB.
        repeats: How many of them differ from ``off`` in nothing but their name.
    """
    if not with_eplb:
        yield asked_rules.no_eplb()
    if gate.noise_floor and not gate.identical and others and not repeats:
        yield accuracy.no_noise_floor()


def arm_rules(
    config: Config,
    off: ArmToJudge,
    arm: ArmToJudge,
    repeats: Sequence[ArmToJudge],
    recorded: Recorded,
) -> list[RuleResult]:
    """Apply every rule to one arm beside ``off``; also for the arm of a control.

    When the arms were not asked the same, only that is told: answers cannot be compared then. An
    arm that was asked until its comparison was decided is compared by what it was asked.
    """
    off, *repeats = enough.as_many_as(arm, config.tasks, [off, *repeats])
    asked = _asked(config, off, arm)
    if verdict(asked) == "invalid":
        return asked
    results = [*asked, *evidence.evidence(config.gate, arm)]
    for task in config.tasks:
        results += _answer_rules(config, Comparison(task, off, arm), repeats)
    if config.gate.recorded_accuracy:
        results += _recorded_accuracy(config, off, arm, [arm], recorded)
    return results


def repeats_of_off(arms: Sequence[ArmToJudge]) -> list[ArmToJudge]:
    """Arms that differ from ``off``, the first, in nothing but their name."""
    off, *others = arms
    return [arm for arm in others if is_repeat(arm, off)]


def alpha_of_one_comparison(config: Config) -> float:
    """``gate.alpha`` shared out, so that it holds for the run as a whole (Bonferroni)."""
    arms = len(without_controls(config.arms[1:]))
    return config.gate.alpha / max(1, arms * sum(task.scored for task in config.tasks))


def verdict(results: Sequence[RuleResult]) -> Verdict:
    """Of all rules together; the worst decides, and without rules nothing was tested."""
    if any(result.rule == "same_questions" and result.verdict == "failed" for result in results):
        return "invalid"
    verdicts = {result.verdict for result in results}
    if "failed" in verdicts:
        return "failed"
    return "passed" if verdicts == {"passed"} else "not tested"


def reasons(results: Sequence[RuleResult]) -> list[str]:
    """What the rules that did not pass saw, and where; what failed comes first."""
    worst = sorted(results, key=lambda result: result.verdict != "failed")
    return [_reason(result) for result in worst if result.verdict != "passed"]


def _reason(result: RuleResult) -> str:
    where = ", ".join(part for part in (result.arm and f"arm {result.arm}", result.task) if part)
    return f"{result.rule}{where and f', {where}'}: {result.saw}"


def _asked(config: Config, off: ArmToJudge, arm: ArmToJudge) -> list[RuleResult]:
    same = [asked_rules.same_questions(task, off, arm) for task in config.tasks]
    return same + [asked_rules.all_answered(task, off, arm) for task in config.tasks]


def _answer_rules(
    config: Config, comparison: Comparison, repeats: Sequence[ArmToJudge]
) -> Iterator[RuleResult]:
    gate = config.gate
    alpha = alpha_of_one_comparison(config)
    if gate.identical:
        yield accuracy.identical_answers(comparison, gate.different_answers)
    if gate.exact:
        yield exact_answers(comparison)
    if comparison.arm.name in [repeat.name for repeat in repeats]:
        yield accuracy.noise_of_repeat(comparison, alpha)
        return
    if comparison.task.until_decided:
        yield enough.paired_accuracy(comparison, gate, alpha)
    elif comparison.task.scored or not gate.identical:
        yield accuracy.paired_accuracy(comparison, gate, alpha)
    noise = accuracy.noise_floor(comparison, repeats, gate)
    if noise is not None:
        yield noise


def _recorded_accuracy(
    config: Config,
    off: ArmToJudge,
    arm: ArmToJudge,
    flipping: Sequence[ArmToJudge],
    recorded: Recorded,
) -> Iterator[RuleResult]:
    for task in config.tasks:
        if task.scored:
            pairs = [Comparison(task, off, other).answers().pairs for other in flipping]
            flips = max((one.flips / max(one.questions, 1) for one in pairs), default=0.0)
            comparison = Comparison(task, off, arm)
            yield accuracy.recorded_accuracy(comparison, recorded.get(task.name), flips)
