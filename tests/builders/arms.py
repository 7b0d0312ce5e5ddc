# SPDX-License-Identifier: Apache-2.0
"""Made-up arms and their answers."""

from typing import Any

from eval.config.schema import TaskName
from eval.judging.scoring import digest, score
from eval.results.samples import Sample
from eval.results.schema import ArmRun
from eval.results.surroundings import Versions

VERSIONS = Versions(
    python="3", vllm_distribution=None, vllm="0.32.0", vllm_eplb_plugin=None, lm_eval=None,
    torch=None, transformers=None,
)  # fmt: skip
QUESTIONS = 12


def sample(
    doc_id: int,
    text: str = "same",
    task: TaskName = "gsm8k",
    correct: bool = True,
    prompt: str | None = None,
) -> Sample:
    """A question, and an answer that begins with ``text``, scored as lm-eval does."""
    asked = f"Question: What is {doc_id}?\nAnswer:" if prompt is None else prompt
    target = f"It is that.\n#### {doc_id}"
    answer = f" {text}: {doc_id}\n#### {doc_id if correct else doc_id + 1}"
    return Sample(
        task=task,
        doc_id=doc_id,
        doc_hash=digest(f"{doc_id}"),
        prompt_hash=digest(asked),
        target_hash=digest(target),
        prompt=asked,
        stop=["Question:"],
        text=answer,
        target=target,
        **score(task, answer, target)._asdict(),
    )


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


def moves(**changes: Any) -> dict[str, Any]:
    """What six plans moved, as by vLLM's policy."""
    values: dict[str, Any] = {
        "rearrangements": 6, "policies": ["vllm"], "steps": [], "triggers": {"interval": 6},
        "layers_changed": 24, "layers": 24, "experts_received": [4, 4, 4, 4],
        "bytes_received": [900, 100], "bytes_from_other_nodes": [0, 0],
        "balancedness_before": 0.5, "balancedness_expected": 0.9, "planning_seconds": 0.001,
        "layers_held_back": 0, "bytes_held_back": 0,
    }  # fmt: skip
    return {**values, **changes}


def arm(name: str, moved: dict[str, Any] | None = None, **changes: Any) -> ArmRun:
    """An arm with all evidence; ``moved`` are changes of `moves`."""
    evidence: dict[str, Any] = {}
    if name != "off":
        evidence = {
            "rearrangements": 6,
            "rearrangements_started": 6,
            "usual_seconds": 0.1,
            "modes": [name.split("-")[0]],
            "slots_changed": [4, 4, 4, 4],
            "models": [
                {
                    "model": "m",
                    "model_index": 0,
                    "stage": 0,
                    "finished": 6,
                    "slots_changed": [4, 4, 4, 4],
                    "moves": moves(**(moved or {})),
                }
            ],
            "weight_checks": 100,
            "checking_ranks": [0, 1],
            "map_checking_ranks": [0, 1],
            "map_checks": 100,
        }
    values: dict[str, Any] = {
        "name": name, "tasks": [task_run()], "start_seconds": 1, "asked_from": 0,
        "asked_until": 1, "logged_rearrangements": 0, "seconds": 1,
        "tokens_per_second": 1, "command": [], "log": "",
    }  # fmt: skip
    return ArmRun.model_validate({**values, **evidence, **changes})
