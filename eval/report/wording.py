# SPDX-License-Identifier: Apache-2.0
"""What the Markdown and the HTML report say in the same words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from eval.activity.timeline import Timeline
from eval.config.control_arms import is_control, without_controls
from eval.judging.comparison import PairedAnswers
from eval.report.arm_counts import is_stock
from eval.report.origin import without_folder
from eval.report.sizes import size
from eval.report.view import KeptRunView, RuleGroup, RunView
from eval.results.schema import Result, RuleResult, Verdict

WORST_FIRST: Sequence[Verdict] = (
    "could not run", "interrupted", "invalid", "failed", "not tested", "passed",
)  # fmt: skip

Fact = tuple[str, str, str]

_REASONS = 8
"""So many are told for what did not finish."""

_MEANS: dict[Verdict, str] = {
    "passed": "Every rule of the gate passed.",
    "failed": "Answers got worse, or something else is wrong.",
    "not tested": "Nothing wrong was found, but evidence is missing.",
    "invalid": "The arms were not asked the same questions.",
    "interrupted": "The run was stopped before it was done; the same command resumes it.",
    "could not run": "A server did not start or stopped answering; the same command resumes.",
}


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """That of a report of several runs."""
    return min(verdicts, key=WORST_FIRST.index)


def meaning(verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    """The worst of some verdicts in a sentence."""
    if len(verdicts) == 1:
        return _MEANS[verdict]
    such = sum(one == verdict for one in verdicts)
    return f"{such} of {len(verdicts)} runs: {_MEANS[verdict][0].lower()}{_MEANS[verdict][1:]}"


def rule_groups(rules: Sequence[RuleResult]) -> list[RuleGroup]:
    """Arm after arm, those with what did not pass first."""
    order = ("failed", "not tested", "passed")
    found: dict[str, list[RuleResult]] = {}
    for rule in rules:
        found.setdefault(_about(rule), []).append(rule)
    for group in found.values():
        group.sort(key=lambda rule: order.index(rule.verdict))
    groups = [RuleGroup(about, group) for about, group in found.items()]
    return sorted(groups, key=lambda group: order.index(group.verdict))


def _about(rule: RuleResult) -> str:
    if rule.arm is None:
        return "the run"
    return "controls" if is_control(rule.arm) else f"arm {rule.arm}"


def subject(first: Result, arms: Sequence[str]) -> str:
    """What was asked of which model in which arms."""
    counts = {
        task.name: f"{task.questions} questions" for arm in first.arms[:1] for task in arm.tasks
    }
    asked = [
        f"{counts.get(task.name, 'questions')} of {task.name}"
        for task in first.config.without_tasks(first.left_out).tasks
    ]
    model = without_folder(first.config.model)
    return f"{model}: {_and(asked)}, asked in arms {_and(list(dict.fromkeys(arms))) or '(none)'}."


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * bool(words[:-1]) + list(words[-1:]))


def of_run(label: str, text: str, runs: Sequence[RunView]) -> str:
    """A text that says of which run it is, where there are several."""
    return f"{label}: {text}" if len(runs) > 1 else text


def parts(reason: str) -> tuple[str, str]:
    """A reason's first line, and the lines of a log or of code after it."""
    first, _, following = reason.partition("\n")
    return first, following


def left_out(task: str, why: str) -> str:
    """What was not asked although it is configured."""
    return f"{task}: left out, it is not scored. {why}"


def notes(run: RunView) -> list[str]:
    """What limits a verdict besides the rules, and what was left out."""
    return [*(left_out(task, why) for task, why in run.left_out.items()), *run.notes]


def facts(results: Sequence[Result], runs: Sequence[KeptRunView]) -> Iterator[Fact]:
    """The figures that matter most: what, how many, of how many."""
    rules = [rule for run in runs for rule in run.rules]
    if rules:
        passed = sum(rule.verdict == "passed" for rule in rules)
        yield "rules passed", str(passed), f"of {len(rules)}"
    yield from _facts_of_answers([one.answers for run in runs for one in run.pairs if one.scored])
    yield from _facts_of_activity(results)
    controls = [control for run in runs for control in run.controls]
    if controls:
        caught = sum(control.caught for control in controls)
        yield "controls caught", str(caught), f"of {len(controls)}"


def _facts_of_answers(scored: Sequence[PairedAnswers]) -> Iterator[Fact]:
    if not scored:
        return
    lost, won = (sum(one.pairs[place] for one in scored) for place in (1, 2))
    yield "answers lost, won", f"{lost}, {won}", f"of {sum(p.pairs.questions for p in scored)}"
    loss = max(one.largest_loss for one in scored)
    yield "loss not excluded at 95\N{NO-BREAK SPACE}%", f"{loss:.1f}", "points"


def _facts_of_activity(results: Sequence[Result]) -> Iterator[Fact]:
    arms = [
        (arm, is_stock(result, arm)) for result in results for arm in without_controls(result.arms)
    ]
    finished = [arm.rearrangements for arm, stock in arms if not stock]
    yield "rearrangements", str(sum(finished)), _in_arms(finished)
    begun = [arm.logged_rearrangements for arm, stock in arms if stock and not arm.elsewhere]
    if begun:
        yield "begun, by vLLM's log", str(sum(begun)), _in_arms(begun)
    if checks := sum(arm.weight_checks for arm, _ in arms):
        wrong = sum(arm.weight_mismatches for arm, _ in arms)
        yield "slots with wrong weights", str(wrong), f"of {checks}"


def _in_arms(counts: Sequence[int]) -> str:
    some = sum(count > 0 for count in counts)
    return f"in {some} {'arm' if some == 1 else 'arms'}" if some else ""


def others(timeline: Timeline) -> Iterator[str]:
    """For each outcome and reason how often, the most frequent first."""
    found = Counter((one.outcome, one.reason) for one in timeline.others)
    for (outcome, reason), number in found.most_common(_REASONS):
        yield f"{number} {outcome}{reason and f': {reason}'}"
    if len(found) > _REASONS:
        yield f"and {len(found) - _REASONS} more reasons"


def times(timeline: Timeline) -> Iterator[tuple[str, str]]:
    """How long rearrangements took and what they moved: figures and their names."""
    done = timeline.rearrangements
    seconds = [one.seconds for one in done]
    yield "rearrangements", str(len(done))
    yield "median", _seconds(median(seconds))
    yield "95th percentile", _seconds(float(np.percentile(seconds, 95)))
    yield "longest", _seconds(max(seconds))
    starts = [
        (one.seconds_to_first_commit, one.seconds)
        for one in done
        if one.seconds_to_first_commit is not None
    ]
    if starts:
        yield "until the first layer is visible, median", _seconds(median(s for s, _ in starts))
        span = median(whole - start for start, whole in starts)
        yield "from the first layer to the last, median", _seconds(max(span, 0.0))
    yield "slots changed, mean", f"{np.mean([one.slots_changed for one in done]):.0f}"
    yield "weights sent, in all", size(sum(one.bytes_sent for one in done))


def _seconds(value: float) -> str:
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
