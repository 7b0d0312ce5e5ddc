# SPDX-License-Identifier: Apache-2.0
"""What the Markdown and the HTML report say in the same words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from eval.activity.timeline import Timeline
from eval.config.schema import CONTROL_PREFIX
from eval.report.origin import relative, without_folder
from eval.report.pairing import PairedAnswers
from eval.report.runs import Run
from eval.results.schema import Result, RuleResult, RuleVerdict, Verdict

WORST_FIRST: Sequence[Verdict] = (
    "could not run", "interrupted", "invalid", "failed", "not tested", "passed",
)  # fmt: skip

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


def overall(runs: Sequence[Run]) -> Verdict:
    """The worst verdict of all runs."""
    return min((run.result.verdict for run in runs), key=WORST_FIRST.index)


def meaning(runs: Sequence[Run]) -> str:
    """The overall verdict in a sentence."""
    verdict = overall(runs)
    if len(runs) == 1:
        return _MEANS[verdict]
    such = sum(run.result.verdict == verdict for run in runs)
    return f"{such} of {len(runs)} runs: {_MEANS[verdict][0].lower()}{_MEANS[verdict][1:]}"


class RuleGroup(NamedTuple):
    """The rules about one arm, or about the run."""

    about: str
    rules: list[RuleResult]
    """What failed first, then what was not tested, else in the order of the rules."""

    @property
    def verdict(self) -> RuleVerdict:
        return self.rules[0].verdict

    @property
    def passed(self) -> list[RuleResult]:
        return [rule for rule in self.rules if rule.verdict == "passed"]

    @property
    def broken(self) -> list[RuleResult]:
        """Those that did not pass."""
        return [rule for rule in self.rules if rule.verdict != "passed"]


def rule_groups(result: Result) -> list[RuleGroup]:
    """Arm after arm, those with what did not pass first."""
    order = ("failed", "not tested", "passed")
    found: dict[str, list[RuleResult]] = {}
    for rule in result.rules:
        found.setdefault(_about(rule), []).append(rule)
    for rules in found.values():
        rules.sort(key=lambda rule: order.index(rule.verdict))
    groups = [RuleGroup(about, rules) for about, rules in found.items()]
    return sorted(groups, key=lambda group: order.index(group.verdict))


def _about(rule: RuleResult) -> str:
    if rule.arm is None:
        return "the run"
    return "controls" if rule.arm.startswith(CONTROL_PREFIX) else f"arm {rule.arm}"


def subject(runs: Sequence[Run]) -> str:
    """What was asked of which model in which arms."""
    first = runs[0].result
    counts = {
        task.name: f"{task.questions} questions" for arm in first.arms[:1] for task in arm.tasks
    }
    asked = [
        f"{counts.get(task.name, 'questions')} of {task.name}"
        for task in first.config.without_tasks(first.left_out).tasks
    ]
    arms = dict.fromkeys(arm.result.name for run in runs for arm in run.arms)
    model = without_folder(first.config.model)
    return f"{model}: {_and(asked)}, asked in arms {_and(list(arms)) or '(none)'}."


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * bool(words[:-1]) + list(words[-1:]))


def reasons(runs: Sequence[Run]) -> list[str]:
    """Why the verdict is not that everything passed."""
    return [
        f"{run.label}: {reason}" if len(runs) > 1 else reason
        for run in runs
        for reason in _reasons(run)
    ]


def parts(reason: str) -> tuple[str, str]:
    """A reason's first line, and the lines of a log or of code after it."""
    first, _, following = reason.partition("\n")
    return first, following


def left_out(runs: Sequence[Run]) -> list[str]:
    """What was not asked although it is configured, and why."""
    return [
        f"{f'{run.label}: ' if len(runs) > 1 else ''}{task}: left out, it is not scored. "
        f"{relative(why, run.result)}"
        for run in runs
        for task, why in run.result.left_out.items()
    ]


def _reasons(run: Run) -> Iterator[str]:
    for reason in run.result.reasons:
        yield relative(reason, run.result)
    if run.missing:
        yield f"arms that were not finished: {', '.join(run.missing)}"


def facts(runs: Sequence[Run], pairs: Sequence[PairedAnswers]) -> Iterator[tuple[str, str, str]]:
    """The figures that matter most: what, how many, of how many."""
    results = [run.result for run in runs]
    arms = [arm.result for run in runs for arm in run.arms]
    rules = [rule for result in results for rule in result.rules]
    controls = [control for result in results for control in result.controls]
    if rules:
        passed = sum(rule.verdict == "passed" for rule in rules)
        yield "rules passed", str(passed), f"of {len(rules)}"
    scored = [one for one in pairs if one.scored]
    if scored:
        lost, won = (sum(one.pairs[place] for one in scored) for place in (1, 2))
        yield "answers lost, won", f"{lost}, {won}", f"of {sum(p.pairs.questions for p in scored)}"
        loss = max(one.largest_loss for one in scored)
        yield "loss not excluded at 95\N{NO-BREAK SPACE}%", f"{loss:.1f}", "points"
    moving = [arm for arm in arms if arm.rearrangements]
    counts = f"in {len(moving)} {'arm' if len(moving) == 1 else 'arms'}" if moving else ""
    yield "rearrangements", str(sum(arm.rearrangements for arm in arms)), counts
    if checks := sum(arm.weight_checks for arm in arms):
        wrong = sum(arm.weight_mismatches for arm in arms)
        yield "slots with wrong weights", str(wrong), f"of {checks}"
    if controls:
        caught = sum(control.caught for control in controls)
        yield "controls caught", str(caught), f"of {len(controls)}"


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


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a whole one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
