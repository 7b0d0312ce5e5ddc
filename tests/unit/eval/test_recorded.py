# SPDX-License-Identifier: Apache-2.0
"""Which recorded accuracy a run is compared with, and how far below it may be."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.config.schema import Config
from eval.errors import GateError
from eval.judging.recorded import RecordedAccuracy, paired_threshold, recorded_accuracies, threshold
from tests.builders.harness import REPOSITORY, gsm8k_task, small_config

RECORDED = sorted((REPOSITORY / "eval/judging/recorded_accuracies").glob("*.yaml"))


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "model": "some-moe", "dtype": ["float32"], "fewshot": 2, "questions": 12,
        "accuracy": 40.0, "source": "made up", **changes,
    }  # fmt: skip


def found(folder: Path, entries: Any, **changes: Any) -> RecordedAccuracy | None:
    (folder / "gsm8k.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    serve = {"options": {"dtype": "float32", "data-parallel-size": 2}}
    gate = {"recorded_accuracy": True}
    config = Config.model_validate(small_config(serve=serve, gate=gate, **changes))
    return recorded_accuracies(config, folder)["gsm8k"]


@pytest.mark.parametrize("model", ["some-moe", "eval/models/some-moe", "/a/some-moe"])
def test_a_folder_is_known_by_its_last_part(tmp_path: Path, model: str) -> None:
    assert found(tmp_path, [entry()], model=model)


@pytest.mark.parametrize(
    "changes",
    [{"model": "other-moe"}, {"model": "me/some-moe"}, {"dtype": ["auto"]}, {"fewshot": 5}],
)
def test_the_accuracy_of_something_else_is_not_taken(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert found(tmp_path, [entry(**changes)]) is None


def test_the_same_questions_are_preferred_and_then_the_most(tmp_path: Path) -> None:
    entries = [entry(questions=count) for count in (48, 200, 12)]

    for asked, expected in ((12, 12), (96, 200), (None, 200)):
        recorded = found(tmp_path, entries, tasks=[gsm8k_task(questions=asked)])
        assert recorded is not None and recorded.questions == expected


def test_nothing_is_looked_up_that_the_gate_does_not_ask_for(tmp_path: Path) -> None:
    unscored = [gsm8k_task(scored=False)]
    wanted = Config.model_validate(small_config(gate={"recorded_accuracy": True}, tasks=unscored))

    assert recorded_accuracies(wanted, tmp_path) == {}
    assert recorded_accuracies(Config.model_validate(small_config()), tmp_path) == {}


@pytest.mark.parametrize("entries", [{"accuracy": 3}, 7, [entry(accuracy=400)], [entry(sgima=1)]])
def test_a_broken_file_is_named(tmp_path: Path, entries: Any) -> None:
    with pytest.raises(GateError, match="gsm8k.yaml is no list of recorded accuracies"):
        found(tmp_path, entries)


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "eval/judging/recorded_accuracies").glob("*.yaml"))
)
def test_the_records_of_the_repository_are_valid(file: Path) -> None:
    for one in yaml.safe_load(file.read_text(encoding="utf-8")):
        RecordedAccuracy.model_validate(one)


@pytest.mark.parametrize(
    ("questions", "changes", "below", "detectable"),
    [
        # What TensorRT-LLM's own script gives for its GSM8K, MMLU and GPQA.
        (1319, {}, 3.20, 4.84),
        (4096, {}, 1.82, 2.75),
        (198, {}, 8.27, 12.5),
        (512, {"alpha": 0.002, "sigma": 11.06}, 1.99, 2.57),
    ],
)
def test_thresholds_are_those_of_tensorrt_llm(
    questions: int, changes: dict[str, Any], below: float, detectable: float
) -> None:
    recorded = RecordedAccuracy.model_validate(entry(questions=questions, **changes))
    limit = threshold(recorded, questions)

    assert 40 - limit.accuracy == pytest.approx(below, abs=0.006)
    assert limit.detectable == pytest.approx(detectable, abs=0.02)


def test_the_same_questions_make_the_threshold_looser_than_it_says() -> None:
    recorded = RecordedAccuracy.model_validate(entry(questions=1319))
    independent = threshold(recorded, 1319)

    paired = paired_threshold(recorded, independent, 1319, flips=0.05)
    assert paired.accuracy == independent.accuracy
    assert paired.alpha < 1e-6
    assert 3.2 < paired.detectable < independent.detectable
    # As if half of all answers flipped: independent runs of a model that is right half the time.
    assert paired_threshold(recorded, independent, 1319, 0.5).alpha == pytest.approx(0.05)


def test_without_a_flip_one_is_assumed() -> None:
    recorded = RecordedAccuracy.model_validate(entry(questions=1319))
    independent = threshold(recorded, 1319)

    assert paired_threshold(recorded, independent, 1319, 0) == paired_threshold(
        recorded, independent, 1319, 1 / 1319
    )
