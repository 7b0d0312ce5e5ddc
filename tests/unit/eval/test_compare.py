# SPDX-License-Identifier: Apache-2.0
"""How answers are paired."""

from eval.judging.comparison import identical_texts
from tests.builders.arms import sample


def test_answers_are_paired_by_document_and_prompt() -> None:
    others = [sample(1, "b"), sample(0, "a")]

    assert identical_texts([sample(0, "a"), sample(1, "b")], others) == {"gsm8k": 2}
    assert identical_texts([sample(0, "b"), sample(1, "a")], others) == {}
    assert identical_texts([sample(0, "a", "other"), sample(7, "a")], others) == {}


def test_answers_to_the_same_number_of_another_task_are_not_compared() -> None:
    other_task = [sample(0, "a", task="gsm_tiny"), sample(1, "b")]

    assert identical_texts(other_task, [sample(0, "a"), sample(1, "b")]) == {"gsm8k": 1}
