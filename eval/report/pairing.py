# SPDX-License-Identifier: Apache-2.0
"""Accuracies and paired answers as the report tells them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from eval.config.schema import TaskName
from eval.judging.statistics import CONFIDENCE, Pairs, largest_loss, loss_p_value, pair
from eval.report.runs import ArmRecord, Run
from eval.results.samples import Sample


@dataclass(frozen=True)
class Accuracy:
    """One arm's share of right answers, by the filter strict-match, with a 95 % interval."""

    right: int
    questions: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.right / self.questions


@dataclass(frozen=True)
class PairedAnswers:
    """One arm's answers beside those of arm ``off`` to the same prompts."""

    run: str
    arm: str
    task: TaskName
    scored: bool
    pairs: Pairs
    lost: list[int]
    """Questions (``doc_id``) that only ``off`` has right."""
    won: list[int]
    identical: int
    """Answers that are, as text, those of ``off``."""

    @property
    def p_value(self) -> float:
        """Of the exact one-sided McNemar test."""
        return loss_p_value(self.pairs)

    @property
    def largest_loss(self) -> float:
        """In points, what is not excluded at 95 %."""
        return 100 * largest_loss(self.pairs)


def accuracy(samples: Sequence[Sample], task: TaskName) -> Accuracy:
    """With the interval of Wilson (1927), which keeps its level near 0 and 1."""
    right = [sample.strict_correct for sample in samples if sample.task == task]
    interval = binomtest(sum(right), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return Accuracy(sum(right), len(right), float(interval.low), float(interval.high))


def all_pairs(run: Run) -> Iterator[PairedAnswers]:
    """Every arm but ``off``, with every task of which both were asked the same."""
    for arm in run.arms[1:]:
        for task in arm.result.tasks:
            paired = pair_with_off(run.label, run.arms[0], arm, task.name, task.scored)
            if paired.pairs.questions:
                yield paired


def pair_with_off(
    run: str, off: ArmRecord, arm: ArmRecord, task: TaskName, scored: bool
) -> PairedAnswers:
    """Pair by document and prompt."""
    ours, theirs = (
        {(one.doc_id, one.prompt_hash): one for one in record.samples if one.task == task}
        for record in (arm, off)
    )
    both = [(theirs[key], ours[key]) for key in sorted(ours.keys() & theirs.keys())]
    return PairedAnswers(
        run=run,
        arm=arm.result.name,
        task=task,
        scored=scored,
        pairs=pair([a.strict_correct for a, _ in both], [b.strict_correct for _, b in both]),
        lost=[a.doc_id for a, b in both if a.strict_correct and not b.strict_correct],
        won=[b.doc_id for a, b in both if b.strict_correct and not a.strict_correct],
        identical=sum(a.text == b.text for a, b in both),
    )
