# SPDX-License-Identifier: Apache-2.0
"""The answers of one arm beside those of arm ``off``. Pure functions (docs/gates.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from eval.config.schema import BASELINE, TaskName
from eval.judging import sequential
from eval.judging.statistics import (
    Interval,
    Pairs,
    difference_p_value,
    largest_loss,
    loss_p_value,
    pair,
    smallest_loss,
    wilson_interval,
)
from eval.results.samples import Sample
from eval.results.schema import ArmResult, ArmRun, TaskResult


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers by the filter strict-match, with its interval by Wilson at 95 %."""

    right: int
    questions: int

    @property
    def value(self) -> float:
        """As a share of the questions; 0 without any."""
        return self.right / self.questions if self.questions else 0.0

    @cached_property
    def interval(self) -> Interval:
        """Where the true share is, of this arm by itself."""
        return wilson_interval(self.right, self.questions)


@dataclass(frozen=True)
class PairedAnswers:
    """Two arms' answers to the same questions: those of ``off`` and those of another arm."""

    task: TaskName
    doc_ids: tuple[int, ...]
    """Questions that both were asked, in order; what follows is in the same order."""
    off_correct: tuple[bool, ...]
    correct: tuple[bool, ...]
    same_text: tuple[bool, ...]
    most: int | None = None
    """All questions, where they were asked until a loss was decided; none: so many were planned."""

    @cached_property
    def pairs(self) -> Pairs:
        """Right and wrong answers, counted."""
        return pair(self.off_correct, self.correct)

    @property
    def lost(self) -> list[int]:
        """Questions (``doc_id``) that only ``off`` has right."""
        return self._questions(True, False)

    @property
    def won(self) -> list[int]:
        """Questions (``doc_id``) that only the other arm has right."""
        return self._questions(False, True)

    @property
    def identical(self) -> int:
        """Answers that are, character for character, those of ``off``."""
        return sum(self.same_text)

    @property
    def different(self) -> int:
        """Answers that are not."""
        return len(self.doc_ids) - self.identical

    @property
    def flipped(self) -> list[bool]:
        """For each question, whether it is right in one of the two only."""
        return [
            before != after for before, after in zip(self.off_correct, self.correct, strict=True)
        ]

    @cached_property
    def p_value(self) -> float:
        """Of the exact one-sided McNemar test, for a loss."""
        return loss_p_value(self.pairs)

    @cached_property
    def difference_p_value(self) -> float:
        """Of the exact two-sided McNemar test."""
        return difference_p_value(self.pairs)

    @cached_property
    def seen(self) -> list[Pairs]:
        """The same at each look, where the answers were looked at while questions were asked."""
        if self.most is None:
            return []
        return sequential.tables(self.off_correct, self.correct, self.most)

    @cached_property
    def largest_loss(self) -> float:
        """In points: larger losses are excluded at 95 %, over all looks if there were several."""
        if self.most is None:
            return 100 * largest_loss(self.pairs)
        return 100 * sequential.largest_loss(self.seen, self.most)

    @cached_property
    def smallest_loss(self) -> float:
        """In points: a smaller loss is excluded at 95 %."""
        return 100 * smallest_loss(self.pairs)

    @property
    def accuracy(self) -> Accuracy:
        """Of the other arm, over these questions."""
        return Accuracy(sum(self.correct), len(self.doc_ids))

    @property
    def off_accuracy(self) -> Accuracy:
        """Of arm ``off``, over these questions."""
        return Accuracy(sum(self.off_correct), len(self.doc_ids))

    def _questions(self, off_correct: bool, correct: bool) -> list[int]:
        flags = zip(self.doc_ids, self.off_correct, self.correct, strict=True)
        return [one for one, before, after in flags if (before, after) == (off_correct, correct)]


def compare(
    off: Sequence[Sample], arm: Sequence[Sample], task: TaskName, most: int | None = None
) -> PairedAnswers:
    """Pair the answers to one task by document and prompt; others are left out.

    Args:
        off: Of arm ``off``.
        arm: Of another.
        task: Which.
        most: All questions, where the arm was asked until a loss was decided.
    """
    before, after = (
        {(one.doc_id, one.prompt): one for one in samples if one.task == task}
        for samples in (off, arm)
    )
    both = sorted(before.keys() & after.keys())
    return PairedAnswers(
        task=task,
        doc_ids=tuple(doc_id for doc_id, _ in both),
        off_correct=tuple(before[one].strict_correct for one in both),
        correct=tuple(after[one].strict_correct for one in both),
        same_text=tuple(before[one].text == after[one].text for one in both),
        most=most,
    )


def accuracy(samples: Sequence[Sample], task: TaskName) -> Accuracy:
    """Of one arm in one task."""
    right = [one.strict_correct for one in samples if one.task == task]
    return Accuracy(sum(right), len(right))


def arm_results(arms: Sequence[ArmRun], samples: Mapping[str, Sequence[Sample]]) -> list[ArmResult]:
    """Set each arm beside arm ``off``, which must be the first."""
    return [_arm_result(arm, samples) for arm in arms]


def _arm_result(arm: ArmRun, samples: Mapping[str, Sequence[Sample]]) -> ArmResult:
    off, its = samples[BASELINE], samples[arm.name]
    tasks = [
        TaskResult(**task.model_dump(), identical_to_off=compare(off, its, task.name).identical)
        for task in arm.tasks
    ]
    return ArmResult.model_validate({**dict(arm), "tasks": tasks})
