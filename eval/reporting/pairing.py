# SPDX-License-Identifier: Apache-2.0
"""Accuracies and paired answers as the report tells them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from eval.ask import Sample
from eval.config import TaskName
from eval.reporting.runs import ArmRecord, Run


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
class Pairs:
    """One arm's answers beside those of arm ``off`` to the same prompts."""

    run: str
    arm: str
    task: TaskName
    both_right: int
    lost: list[int]
    """Questions (``doc_id``) that only ``off`` has right."""
    won: list[int]
    both_wrong: int
    identical: int
    """Answers that are, as text, those of ``off``."""
    unpaired: int
    """Questions that only one of the two was asked."""

    @property
    def questions(self) -> int:
        return self.both_right + len(self.lost) + len(self.won) + self.both_wrong

    @property
    def p_value(self) -> float:
        """Exact one-sided McNemar test: that so many are lost if the arm is as good as off."""
        discordant = len(self.lost) + len(self.won)
        if not discordant:
            return 1.0
        return float(binomtest(len(self.lost), discordant, alternative="greater").pvalue)


def accuracy(samples: Sequence[Sample], task: TaskName) -> Accuracy:
    """With the interval of Wilson (1927), which keeps its level near 0 and 1."""
    right = [sample.strict_correct for sample in samples if sample.task == task]
    interval = binomtest(sum(right), len(right)).proportion_ci(0.95, method="wilson")
    return Accuracy(sum(right), len(right), float(interval.low), float(interval.high))


def all_pairs(run: Run) -> Iterator[Pairs]:
    """Every arm but ``off``, with every task."""
    for arm in run.arms[1:]:
        for task in arm.result.tasks:
            yield pairs(run.label, run.arms[0], arm, task.name)


def pairs(run: str, off: ArmRecord, arm: ArmRecord, task: TaskName) -> Pairs:
    """Pair by document and prompt."""
    ours, theirs = (
        {(one.doc_id, one.prompt_hash): one for one in record.samples if one.task == task}
        for record in (arm, off)
    )
    both = [(theirs[key], ours[key]) for key in sorted(ours.keys() & theirs.keys())]
    return Pairs(
        run=run,
        arm=arm.result.name,
        task=task,
        both_right=sum(a.strict_correct and b.strict_correct for a, b in both),
        lost=[a.doc_id for a, b in both if a.strict_correct and not b.strict_correct],
        won=[a.doc_id for a, b in both if b.strict_correct and not a.strict_correct],
        both_wrong=sum(not a.strict_correct and not b.strict_correct for a, b in both),
        identical=sum(a.text == b.text for a, b in both),
        unpaired=len(ours.keys() ^ theirs.keys()),
    )
