# SPDX-License-Identifier: Apache-2.0
"""Arms that are asked until their comparison with ``off`` is decided. Pure (docs/gates.md)."""

from collections.abc import Sequence
from typing import NamedTuple

from eval.config.gate_section import Gate
from eval.config.schema import Task
from eval.judging import sequential
from eval.judging.answer_rules import Comparison, about_comparison, too_few_right
from eval.judging.arms import ArmToJudge, first_questions, is_repeat, plural
from eval.judging.comparison import PairedAnswers
from eval.judging.sequential import Design, Found
from eval.judging.statistics import CONFIDENCE
from eval.results.decision import Decision
from eval.results.schema import RuleResult


class SoFar(NamedTuple):
    """What the answers say after so many questions."""

    found: Found
    too_few: str
    """Why ``off`` has too few right answers for a loss to show; empty: it has not."""

    @property
    def passed(self) -> bool | None:
        """None: nothing is decided."""
        if self.found.what == "loss":
            return False
        return True if self.found.what == "no loss" and not self.too_few else None


def judge_so_far(answers: PairedAnswers, gate: Gate, alpha: float) -> SoFar:
    """What all looks together have shown, the last one after the last answer.

    Args:
        answers: To the first questions of a task, of which all may be asked.
        gate: Its margin.
        alpha: Of this one comparison.
    """
    design = design_of(answers, gate, alpha)
    asked = answers.off_accuracy
    spent = sequential.allowed(design, min(max(asked.questions, 1), design.most))
    return SoFar(sequential.find(design, answers.seen), too_few_right(asked, gate, spent))


def decide(answers: PairedAnswers, gate: Gate, alpha: float) -> Decision:
    """The same as it is kept."""
    design = design_of(answers, gate, alpha)
    found = sequential.find(design, answers.seen)
    return Decision(
        found=found.what,
        found_after=found.questions,
        looks=len(answers.seen),
        at_most=design.most,
        alpha=alpha,
        margin_points=gate.margin_points or 0.0,
    )


def design_of(answers: PairedAnswers, gate: Gate, alpha: float) -> Design:
    """What has to be decided."""
    margin = None if gate.margin_points is None else gate.margin_points / 100
    return Design(alpha, margin, answers.most or len(answers.doc_ids))


def as_many_as(
    arm: ArmToJudge, tasks: Sequence[Task], others: Sequence[ArmToJudge]
) -> list[ArmToJudge]:
    """Arms, of which the first is ``off``, as if they had been asked as many as ``arm`` was."""
    if is_repeat(arm, others[0]):
        return [*others]
    most = {task.name: len(arm.answers(task.name)) for task in tasks if task.until_decided}
    return [first_questions(other, most) for other in others]


def paired_accuracy(comparison: Comparison, gate: Gate, alpha: float) -> RuleResult:
    """No loss is shown, and one of ``gate.margin_points`` is excluded, at any of the looks.

    Args:
        comparison: With arm ``off``, of a task whose questions are ``enough``.
        gate: Its margin.
        alpha: Of this one comparison, over all looks.
    """
    answers = comparison.answers()
    so_far, pairs = judge_so_far(answers, gate, alpha), answers.pairs
    margin, too_few = gate.margin_points, so_far.too_few
    limit = f"failed if so many lost at one of the looks are less probable than {alpha:.3g}"
    passes = "nothing but a loss that shows"
    if margin is not None:
        limit += f"; not tested unless a loss of {margin:g} points is excluded"
        share = f"{100 - 100 * CONFIDENCE:g} of 100 runs"
        passes = f"a loss of {margin:g} points, which passes at most in {share}"
    return about_comparison(
        comparison,
        "paired_accuracy",
        so_far.passed,
        f"{pairs.both + pairs.won} of {pairs.questions} right, {pairs.both + pairs.lost} in arm "
        f"{comparison.off.name}: {pairs.lost} lost, {pairs.won} won; {_in_words(so_far.found)}, "
        f"{plural(len(answers.seen), 'look')} of at most {answers.most} questions; losses over "
        f"{answers.largest_loss:.1f} points are excluded at {100 * CONFIDENCE:g} %"
        f"{too_few and f'; {too_few}'}",
        limit=limit,
        detectable=f"nothing: {too_few}" if too_few else passes,
    )


def _in_words(found: Found) -> str:
    decided = {"loss": "a loss is shown", "no loss": "one of the margin is excluded"}
    if found.questions is None:
        return "neither a loss is shown nor one of the margin excluded"
    return f"{decided[found.what]} after {plural(found.questions, 'question')}"
