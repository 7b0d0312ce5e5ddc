# SPDX-License-Identifier: Apache-2.0
"""Made-up arms and their answers."""

from typing import Any

from eval.config.schema import TaskName
from eval.results.samples import Sample
from eval.results.schema import ArmRun, Versions

VERSIONS = Versions(
    python="3", vllm_distribution=None, vllm="0.32.0", vllm_eplb_plugin=None, lm_eval=None,
    torch=None, transformers=None,
)  # fmt: skip
QUESTIONS = 12


def sample(
    doc_id: int,
    text: str = "same",
    prompt_hash: str = "p",
    task: TaskName = "gsm8k",
    correct: bool = False,
) -> Sample:
    return Sample(
        task=task, doc_id=doc_id, doc_hash="d", prompt_hash=prompt_hash, target_hash="t", prompt="",
        stop=[], text=text, target="", strict_match="", strict_correct=correct,
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
            "rearrangements_started": 6,
            "usual_seconds": 0.1,
            "modes": [name],
            "slots_changed": [4, 4, 4, 4],
            "weight_checks": 100,
            "checking_ranks": [0, 1],
            "map_checks": 100,
        }
    values: dict[str, Any] = {
        "name": name, "tasks": [task_run()], "start_seconds": 1, "asked_from": 0,
        "asked_until": 1, "logged_rearrangements": 0, "seconds": 1,
        "tokens_per_second": 1, "command": [], "log": "",
    }  # fmt: skip
    return ArmRun.model_validate({**values, **evidence, **changes})
