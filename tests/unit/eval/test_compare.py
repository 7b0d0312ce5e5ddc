# SPDX-License-Identifier: Apache-2.0
"""One arm's answers beside those of arm off."""

import pytest
from scipy.stats import binomtest

from eval.judging.comparison import accuracy, compare
from tests.builders.arms import sample


def test_only_answers_to_the_same_prompt_of_the_same_task_are_paired() -> None:
    off = [sample(0, "a"), sample(1, "b"), sample(2, "c")]
    arm = [sample(2, "c"), sample(1, "b", prompt="other"), sample(0, "x"), sample(7, "a")]
    answers = compare(off, arm, "gsm8k")
    assert (answers.doc_ids, answers.identical, answers.different) == ((0, 2), 1, 1)
    assert compare(off, [sample(0, "a", task="gsm_tiny")], "gsm8k").doc_ids == ()


def test_lost_and_won_questions_are_named() -> None:
    off = [sample(doc_id, correct=doc_id < 3) for doc_id in range(5)]
    arm = [sample(doc_id, correct=doc_id in (0, 4)) for doc_id in range(5)]
    answers = compare(off, arm, "gsm8k")
    assert (answers.lost, answers.won) == ([1, 2], [4])
    assert tuple(answers.pairs) == (1, 2, 1, 1)
    assert answers.flipped == [False, True, True, False, True]
    assert (answers.accuracy.value, answers.off_accuracy.value) == (2 / 5, 3 / 5)


@pytest.mark.parametrize("right", [0, 1, 7, 12])
def test_the_interval_of_an_accuracy_is_wilsons(right: int) -> None:
    low, high = accuracy([sample(n, correct=n < right) for n in range(12)], "gsm8k").interval
    expected = binomtest(right, 12).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_without_answers_nothing_is_known_of_an_accuracy() -> None:
    assert accuracy([], "gsm8k").value == 0
    assert accuracy([], "gsm8k").interval == (0, 1)
