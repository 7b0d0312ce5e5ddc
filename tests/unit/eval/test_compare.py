# SPDX-License-Identifier: Apache-2.0
"""Which runs get which verdict."""

from typing import Any

import pytest

from eval.ask import Sample
from eval.compare import Judgement, arm_results, identical_answers, judge
from eval.config import Config, TaskName
from eval.result import ArmRun, ReferenceResult
from tests.unit.eval.conftest import gsm8k_task, small_config

QUESTIONS = 12


def sample(
    doc_id: int, text: str = "same", prompt_hash: str = "p", task: TaskName = "gsm8k"
) -> Sample:
    return Sample(
        task=task, doc_id=doc_id, doc_hash="d", prompt_hash=prompt_hash, target_hash="t", prompt="",
        stop=[], text=text, target="", strict_match="", strict_correct=False,
        flexible_extract="", flexible_correct=False,
    )  # fmt: skip


def samples(**texts: str) -> list[Sample]:
    """Twelve questions; ``q3="other"`` is another answer to question 3."""
    return [sample(doc_id, texts.get(f"q{doc_id}", "same")) for doc_id in range(QUESTIONS)]


def task_run(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "gsm8k", "scored": True, "questions": QUESTIONS, "task_hash": "h",
        "task_version": 3, "accuracy": 0, "accuracy_stderr": None, "accuracy_flexible": 0,
        "accuracy_flexible_stderr": None,
    }  # fmt: skip
    return {**values, **changes}


def arm(name: str, **changes: Any) -> ArmRun:
    evidence: dict[str, Any] = {}
    if name != "off":
        evidence = {
            "rearrangements": 6,
            "modes": [name],
            "slots_changed": [4, 4, 4, 4],
            "weight_checks": 100,
        }
    values: dict[str, Any] = {
        "name": name, "tasks": [task_run()], "start_seconds": 1, "asked_from": 0,
        "asked_until": 1, "seconds": 1,
        "tokens_per_second": 1, "command": [], "log": "",
    }  # fmt: skip
    return ArmRun.model_validate({**values, **evidence, **changes})


def verdict(
    *,
    sync: dict[str, Any] | None = None,
    asynchronous: dict[str, Any] | None = None,
    off: dict[str, Any] | None = None,
    async_samples: list[Sample] | None = None,
    found: ReferenceResult | None = None,
    **config: Any,
) -> Judgement:
    arms = [
        arm("off", **(off or {})),
        arm("sync", **(sync or {})),
        arm("async", **(asynchronous or {})),
    ]
    answers = {"off": samples(), "sync": samples(), "async": async_samples or samples()}
    return judge(
        Config.model_validate(small_config(**config)),
        arm_results(arms, answers),
        answers,
        found,
    )


def test_answers_are_paired_by_document_and_prompt() -> None:
    others = [sample(1, "b"), sample(0, "a")]

    assert identical_answers([sample(0, "a"), sample(1, "b")], others) == {"gsm8k": 2}
    assert identical_answers([sample(0, "b"), sample(1, "a")], others) == {}
    assert identical_answers([sample(0, "a", "other"), sample(7, "a")], others) == {}


def test_answers_to_the_same_number_of_another_task_are_not_compared() -> None:
    other_task = [sample(0, "a", task="gsm_tiny"), sample(1, "b")]

    assert identical_answers(other_task, [sample(0, "a"), sample(1, "b")]) == {"gsm8k": 1}


def test_equal_answers_with_all_evidence_are_the_same() -> None:
    assert verdict() == ("passed", [])


def test_one_different_answer_is_different() -> None:
    judgement = verdict(async_samples=samples(q3="other"))

    assert judgement == ("failed", ["arm async, gsm8k: 1 of 12 answers differ from arm off"])


def test_mismatched_weights_are_different() -> None:
    judgement = verdict(sync={"weight_mismatches": 2})

    assert judgement.verdict == "failed"
    assert judgement.reasons == [
        "arm sync: 2 of 100 checked slots hold other weights than the map says"
    ]


def test_a_difference_from_the_reference_is_different() -> None:
    found = ReferenceResult(prompts=4, identical=3, different=[2], seconds=1)

    assert verdict(found=found).verdict == "failed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sync": {"rearrangements": 4}}, "arm sync: 4 rearrangements finished"),
        ({"sync": {"slots_changed": [4, 0, 4, 0]}}, "no slot changed in MoE layers [1, 3]"),
        ({"sync": {"slots_changed": [4, 4, 4]}}, "events of 3 MoE layers"),
        ({"sync": {"weight_checks": 0}}, "no weights were checked"),
        ({"asynchronous": {"modes": ["sync"]}}, "arm async: rearrangements ran in mode sync"),
        (
            {"tasks": [gsm8k_task(questions=13)]},
            "gsm8k: only 12 questions, tasks.gsm8k.questions says 13",
        ),
        ({"reference": {"transformers_prompts": 4}}, "fewer than 4 prompts compared"),
    ],
)
def test_equal_answers_without_evidence_are_not_tested(
    changes: dict[str, Any], reason: str
) -> None:
    judgement = verdict(**changes)

    assert judgement.verdict == "not tested"
    assert len(judgement.reasons) == 1
    assert reason in judgement.reasons[0]


def test_a_difference_weighs_more_than_missing_evidence_and_both_are_told() -> None:
    judgement = verdict(sync={"rearrangements": 0, "weight_mismatches": 1})

    assert judgement.verdict == "failed"
    assert len(judgement.reasons) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"sync": {"tasks": [task_run(task_hash="other")]}},
        {"sync": {"tasks": [task_run(questions=11)]}},
        {"async_samples": [sample(doc_id, prompt_hash="q") for doc_id in range(QUESTIONS)]},
    ],
)
def test_arms_that_were_asked_different_things_are_not_comparable(changes: dict[str, Any]) -> None:
    judgement = verdict(**changes)

    assert judgement.verdict == "invalid"
    assert "the questions changed between the arms" in judgement.reasons[0]
