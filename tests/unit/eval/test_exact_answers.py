# SPDX-License-Identifier: Apache-2.0
"""Answers whose every token and probability have to be those without EPLB."""

from collections.abc import Sequence

import pytest

from eval.results.samples import Sample, Tokens
from tests.builders.arms import QUESTIONS, samples
from tests.builders.harness import gsm8k_task
from tests.builders.run_to_judge import Run, gate

IDS, LOGPROBS = [5, 17, 2], [-0.25, -1.5, -0.001]


def with_tokens(given: Sequence[Sample], **others: Tokens | None) -> list[Sample]:
    """Each answer with the same three tokens; ``q3=...`` are other ones of question 3."""
    usual = Tokens(ids=IDS, logprobs=LOGPROBS)
    return [one.model_copy(update={"tokens": others.get(f"q{one.doc_id}", usual)}) for one in given]


def exact_run(**others: Tokens | None) -> Run:
    """A run in which arm sync alone may differ."""
    run = Run(tasks=[gsm8k_task(logprobs=True)], gate=gate(exact=True))
    run.answers = {name: with_tokens(samples()) for name in run.runs}
    run.answers["sync"] = with_tokens(samples(), **others)
    return run


def test_equal_tokens_and_probabilities_pass() -> None:
    run = exact_run()
    assert run.bad() == []
    assert run.only("exact_answers", "sync").saw == (
        f"0 of 12 answers with {3 * QUESTIONS} tokens differ from arm off"
    )


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (
            Tokens(ids=IDS, logprobs=[-0.25, -1.5000001, -0.001]),
            "question 3 first, whose token 1 is off by 1e-07 in its logarithm; 0 differ in a "
            "token before they do in a probability",
        ),
        (Tokens(ids=[5, 18, 2], logprobs=LOGPROBS), "whose token 1 is another; 1 differ in a"),
        (Tokens(ids=IDS[:2], logprobs=LOGPROBS[:2]), "whose token 2 is another"),
        (Tokens(ids=[*IDS, 9], logprobs=[*LOGPROBS, -1.0]), "whose token 3 is another"),
    ],
)
def test_one_other_bit_fails_and_is_told_though_the_text_is_the_same(
    tokens: Tokens, said: str
) -> None:
    run = exact_run(q3=tokens)
    assert run.bad() == [("exact_answers", "sync", "failed")]
    saw = run.only("exact_answers", "sync").saw
    assert saw.startswith("1 of 12 answers with 36 tokens differ from arm off: ")
    assert said in saw


def test_answers_without_their_tokens_prove_nothing() -> None:
    run = exact_run(q3=None, q4=None)
    assert run.bad() == [("exact_answers", "sync", "not tested")]
    assert "2 were kept without their tokens" in run.only("exact_answers", "sync").saw


def test_answers_of_no_token_at_all_prove_nothing() -> None:
    run = exact_run()
    nothing = {f"q{number}": Tokens(ids=[], logprobs=[]) for number in range(QUESTIONS)}
    run.answers = {name: with_tokens(samples(), **nothing) for name in run.runs}
    assert ("exact_answers", "async", "not tested") in run.bad()
