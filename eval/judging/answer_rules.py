# SPDX-License-Identifier: Apache-2.0
"""Rules about answers: are they as good as those of arm ``off``? Pure functions (docs/gates.md)."""

from collections.abc import Sequence
from typing import NamedTuple

from eval.config.gate_section import Gate
from eval.config.schema import Task
from eval.judging.arms import ArmToJudge, is_repeat, outcome, plural
from eval.judging.comparison import Accuracy, PairedAnswers, accuracy, compare
from eval.judging.power import Model, PairedTest, detectable_loss
from eval.judging.recorded import RecordedAccuracy, paired_threshold, threshold
from eval.judging.statistics import (
    CONFIDENCE,
    Pairs,
    largest_loss,
    largest_share,
    pair,
    smallest_loss,
    smallest_share,
)
from eval.results.schema import RuleResult

_POWER = 0.8


class Comparison(NamedTuple):
    """One task in two arms."""

    task: Task
    off: ArmToJudge
    arm: ArmToJudge

    def answers(self) -> PairedAnswers:
        """Those of the arm beside those of ``off``."""
        until_decided = self.task.until_decided and not is_repeat(self.arm, self.off)
        most = self.task.limit if until_decided else None
        return compare(self.off.samples, self.arm.samples, self.task.name, most)


def identical_answers(comparison: Comparison, allowed: int) -> RuleResult:
    """Where arithmetic is exact enough, every answer has to be the same, but for ``allowed``."""
    answers = comparison.answers()
    questions, different = len(answers.doc_ids), answers.different
    # The share of which so few are found only once in twenty times.
    share = largest_share(allowed, questions)
    limit = f"at most {allowed}" if allowed else "none"
    return about_comparison(
        comparison,
        "identical_answers",
        False if different > allowed else None if 0 < questions <= allowed else True,
        f"{different} of {plural(questions, 'answer')} differ from arm {comparison.off.name}"
        f"{'; all of them may' if 0 < questions <= allowed else ''}",
        limit=f"{limit}, character for character",
        detectable=f"a fault that changes {100 * share:.1f} % of answers, with probability "
        f"{CONFIDENCE}",
    )


def paired_accuracy(comparison: Comparison, gate: Gate, alpha: float) -> RuleResult:
    """No loss is shown, and one of ``gate.margin_points`` is excluded.

    Args:
        comparison: With arm ``off``.
        gate: Its margin.
        alpha: Of this one comparison.
    """
    if not comparison.task.scored:
        return about_comparison(
            comparison,
            "paired_accuracy",
            None,
            "the task is not scored and its answers may differ: nothing tells a loss",
            limit="a scored task, or gate.identical",
            detectable="nothing",
        )
    answers = comparison.answers()
    pairs, p_value, bound = answers.pairs, answers.p_value, answers.largest_loss
    margin = gate.margin_points
    excluded = margin is None or bound <= margin
    too_few = too_few_right(answers.off_accuracy, gate, alpha)
    limit = f"failed if p is below {alpha:.3g}"
    if margin is not None:
        limit += f"; not tested unless a loss of {margin:g} points is excluded"
    return about_comparison(
        comparison,
        "paired_accuracy",
        False if p_value < alpha else True if excluded and not too_few else None,
        f"{pairs.both + pairs.won} of {pairs.questions} right, {pairs.both + pairs.lost} in arm "
        f"{comparison.off.name}: {pairs.lost} lost, {pairs.won} won, p = {p_value:.2g}; losses "
        f"over {bound:.1f} points are excluded at {100 * CONFIDENCE:g} %"
        f"{too_few and f'; {too_few}'}",
        limit=limit,
        detectable=f"nothing: {too_few}" if too_few else _detectable(pairs, alpha),
    )


def too_few_right(off: Accuracy, gate: Gate, alpha: float) -> str:
    """Why arm ``off`` is too bad for a loss to show; empty: it is not.

    What is wrong already cannot be lost: a loss of the margin must be possible, by the lower bound
    of the true accuracy of ``off``, and losing all that is right must be significant.
    """
    right = f"arm off has {off.right} of {plural(off.questions, 'answer')} right"
    if 0.5**off.right >= alpha:
        return f"{right}, so few that p would not be below {alpha:.3g} if all of them were lost"
    least = 100 * smallest_share(off.right, off.questions)
    if gate.margin_points is not None and least < gate.margin_points:
        shown = f"{right}, which shows an accuracy of {least:.1f} % at least"
        return f"{shown}: a loss of {gate.margin_points:g} points may not be possible"
    return ""


def noise_of_repeat(comparison: Comparison, alpha: float) -> RuleResult:
    """How many answers flip when nothing differs: an arm that repeats arm ``off``."""
    answers = comparison.answers()
    pairs, p_value = answers.pairs, answers.difference_p_value
    saw = _flips(comparison, answers)
    if not comparison.task.scored:
        return about_comparison(
            comparison, "noise_floor", True, saw, limit="none", detectable="nothing"
        )
    return about_comparison(
        comparison,
        "noise_floor",
        p_value >= alpha,
        f"{saw}; {pairs.lost} lost, {pairs.won} won, p = {p_value:.2g}",
        limit=f"failed if p is below {alpha:.3g}: then no comparison with arm "
        f"{comparison.off.name} means anything",
        detectable=_detectable(pairs, alpha / 2),
    )


def noise_floor(
    comparison: Comparison, repeats: Sequence[ArmToJudge], gate: Gate
) -> RuleResult | None:
    """Answers flip about as often as between ``off`` and the repeat of it that flips most."""
    if not comparison.task.scored or not repeats:
        return None
    answers = comparison.answers()
    floors = {repeat.name: comparison._replace(arm=repeat).answers() for repeat in repeats}
    name, floor = max(floors.items(), key=lambda one: one[1].pairs.flips)
    # The same questions in both: those that flip in one of the two only decide.
    excess = pair(answers.flipped, floor.flipped)
    at_least, at_most = 100 * smallest_loss(excess), 100 * largest_loss(excess)
    return about_comparison(
        comparison,
        "noise_floor",
        at_least <= gate.excess_flips_points,
        f"{_flips(comparison, answers)}; {100 * floor.pairs.flips / excess.questions:.1f} % flip "
        f"in arm {name}: between {at_least:.1f} and {at_most:.1f} points more here",
        limit=f"failed if at least {gate.excess_flips_points:g} points more are shown",
        detectable=f"{gate.excess_flips_points + 100 * excess.loss - at_least:.1f} points more, "
        "with probability 0.5",
    )


def no_noise_floor() -> RuleResult:
    """Answers may differ, and nothing says how much they do by themselves."""
    return outcome(
        "noise_floor",
        None,
        "no arm repeats arm off",
        limit="one arm without eplb and with the same plugin settings, such as off-again; or "
        "gate.noise_floor: false",
        detectable="nothing",
    )


def recorded_accuracy(
    comparison: Comparison, recorded: RecordedAccuracy | None, flips: float
) -> RuleResult:
    """The accuracy is not below a recorded one by more than chance allows.

    Args:
        comparison: Of the arm, which may be ``off`` itself, with ``off``.
        recorded: The recorded one; none: there is none.
        flips: Share of answers that flip from one run to the next, for the paired correction.
    """
    if recorded is None:
        return about_comparison(
            comparison,
            "recorded_accuracy",
            None,
            "no accuracy is recorded in eval/judging/recorded_accuracies/"
            f"{comparison.task.name}.yaml for this model, dtype and number of shots",
            limit="a recorded accuracy",
            detectable="nothing",
        )
    found = accuracy(comparison.arm.samples, comparison.task.name)
    percent, questions = 100 * found.value, found.questions
    independent = threshold(recorded, questions)
    paired = paired_threshold(recorded, independent, questions, flips)
    return about_comparison(
        comparison,
        "recorded_accuracy",
        percent >= independent.accuracy,
        f"{percent:.2f} %, recorded {recorded.accuracy:.2f} % of {recorded.questions}",
        limit=f"at least {independent.accuracy:.2f} % (alpha {recorded.alpha:g}, sigma "
        f"{recorded.sigma:g}, n {questions})",
        detectable=f"{independent.detectable:.2f} points less with probability "
        f"{1 - recorded.beta:g} (beta {recorded.beta:g}), as if the recorded run had had other "
        f"questions; it had the same, so with {100 * flips:.1f} % of answers flipping "
        f"alpha is {_small(paired.alpha)} and {paired.detectable:.2f} points less are detected",
    )


def about_comparison(
    comparison: Comparison, rule: str, passed: bool | None, saw: str, *, limit: str, detectable: str
) -> RuleResult:
    """What a rule about one comparison found."""
    return outcome(
        rule,
        passed,
        saw,
        limit=limit,
        detectable=detectable,
        arm=comparison.arm.name,
        task=comparison.task.name,
    )


def _flips(comparison: Comparison, answers: PairedAnswers) -> str:
    pairs = answers.pairs
    texts = f"{answers.different} of {pairs.questions} texts differ"
    if not comparison.task.scored:
        return texts
    return f"{texts}, {pairs.flips} answers flip ({100 * pairs.flips / pairs.questions:.1f} %)"


def _detectable(pairs: Pairs, alpha: float) -> str:
    flips = pairs.flips / pairs.questions
    loss = detectable_loss(PairedTest(alpha), Model(pairs.questions, flips), _POWER)
    if loss is None:
        return f"no loss: {plural(pairs.questions, 'question')} are too few"
    flipping = f"if {100 * flips:.1f} % of answers flip, as here"
    return f"a loss of {100 * loss:.1f} points with probability {_POWER} {flipping}"


def _small(share: float) -> str:
    return "below 0.0001" if share < 0.0001 else f"{share:.1g}"
