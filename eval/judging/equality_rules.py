# SPDX-License-Identifier: Apache-2.0
"""Rules about answers that have to be equal to the last bit, or letter. Pure functions."""

from typing import NamedTuple

from eval.judging.answer_rules import Comparison
from eval.judging.arms import outcome, plural
from eval.results.oracle_result import OracleResult
from eval.results.samples import Sample, Tokens
from eval.results.schema import RuleResult


class _Difference(NamedTuple):
    """The first token of one answer that is not as in arm ``off``."""

    doc_id: int
    token: int
    """Its place in the answer, from 0."""
    logprob: float | None
    """How far its log-probability is from that of the same token; None: another token."""


def exact_answers(comparison: Comparison) -> RuleResult:
    """Every token of every answer is that of ``off``, with the same log-probability."""
    name = comparison.task.name
    of_off = {(one.doc_id, one.prompt): one for one in comparison.off.answers(name)}
    answers = comparison.arm.answers(name)
    compared, tokens, differences = 0, 0, []
    for after in answers:
        before = of_off.get((after.doc_id, after.prompt))
        if before is None or before.tokens is None or after.tokens is None:
            continue
        compared += 1
        tokens += len(before.tokens.ids)
        if (difference := _first_difference(after, before.tokens, after.tokens)) is not None:
            differences.append(difference)
    complete = compared == len(answers) and tokens > 0
    return outcome(
        "exact_answers",
        False if differences else True if complete else None,
        f"{len(differences)} of {plural(compared, 'answer')} with {tokens} tokens differ from arm "
        f"{comparison.off.name}{_told(differences)}"
        f"{'' if complete else f'; {len(answers) - compared} were kept without their tokens'}",
        limit="none, in any token or the last bit of its log-probability",
        detectable="a single other token or log-probability",
        arm=comparison.arm.name,
        task=comparison.task.name,
    )


def oracle_answers(found: OracleResult | None, prompts: int) -> RuleResult:
    """The first answers of arm ``off`` are those of greedy decoding by transformers."""
    compared = found.prompts if found else 0
    different = compared - found.identical if found else 0
    return outcome(
        "oracle_answers",
        False if different else True if compared >= prompts else None,
        f"{different} of {plural(compared, 'answer')} of arm off differ from greedy decoding by "
        "transformers in float32",
        limit=f"none of {prompts}",
        detectable="a single different answer",
        arm="off",
    )


def _first_difference(sample: Sample, before: Tokens, after: Tokens) -> _Difference | None:
    pairs = zip(before.ids, after.ids, before.logprobs, after.logprobs, strict=False)
    for place, (token, other, logprob, another) in enumerate(pairs):
        if token != other:
            return _Difference(sample.doc_id, place, None)
        if logprob != another:
            return _Difference(sample.doc_id, place, abs(logprob - another))
    if len(before.ids) != len(after.ids):
        return _Difference(sample.doc_id, min(len(before.ids), len(after.ids)), None)
    return None


def _told(differences: list[_Difference]) -> str:
    if not differences:
        return ""
    first = differences[0]
    others = sum(difference.logprob is None for difference in differences)
    what = "another" if first.logprob is None else f"off by {first.logprob:.2g} in its logarithm"
    return (
        f": question {first.doc_id} first, whose token {first.token} is {what}; {others} differ in "
        "a token before they do in a probability"
    )
