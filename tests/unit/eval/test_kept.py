# SPDX-License-Identifier: Apache-2.0
"""Runs that are judged again from their folders, and what is said of those that cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.config.gate_section import Gate
from eval.config.schema import Config
from eval.errors import EvaluationError
from eval.judging.kept import judge_kept
from tests.builders.arms import sample
from tests.builders.harness import gsm8k_task, small_config
from tests.builders.kept import LAYERS, answers, as_schema_4, write_kept_run


def test_a_kept_run_is_judged_from_its_answers_and_events(tmp_path: Path) -> None:
    result = judge_kept([write_kept_run(tmp_path)])

    assert (result.verdict, result.reasons) == ("passed", [])
    assert result.arms[1].rearrangements == 6
    assert result.arms[1].slots_changed == [6] * LAYERS


def test_another_gate_gives_another_verdict_and_the_kept_result_stays(tmp_path: Path) -> None:
    folder = write_kept_run(tmp_path)
    before = (folder / "result.json").read_bytes()

    result = judge_kept([folder], Gate(identical=True, margin_points=25, rearrangements=7))

    assert result.verdict == "not tested"
    assert result.config.gate.rearrangements == 7
    assert (folder / "result.json").read_bytes() == before


def test_the_arms_of_another_run_are_judged_beside_off_of_the_first(tmp_path: Path) -> None:
    arms = [{"name": "off"}, small_config()["arms"][1]]
    first, other = write_kept_run(tmp_path, arms=arms), write_kept_run(tmp_path, "other", arms=arms)

    result = judge_kept([first, other])

    assert [one.name for one in result.arms] == ["off", "sync", "other.off", "other.sync"]
    assert result.verdict == "passed"
    floors = {one.arm for one in result.rules if one.rule == "noise_floor"}
    assert floors == {"other.off", "sync", "other.sync"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "someone/other-moe"}, "their model differ, someone/some-moe and someone/other"),
        ({"tasks": [gsm8k_task(fewshot=3)]}, "their tasks differ"),
    ],
)
def test_runs_of_other_models_or_tasks_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    first, other = write_kept_run(tmp_path), write_kept_run(tmp_path, "other", **changes)

    with pytest.raises(EvaluationError, match=message) as error:
        judge_kept([first, other])
    assert str(first) in str(error.value) and str(other) in str(error.value)


def test_two_runs_of_one_name_are_named(tmp_path: Path) -> None:
    first, other = write_kept_run(tmp_path / "a", "one"), write_kept_run(tmp_path / "b", "two")
    again = write_kept_run(tmp_path / "c", "two")

    with pytest.raises(EvaluationError, match="two runs are named 'two'"):
        judge_kept([first, other, again])


def cut(file: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        text = (folder / file).read_bytes()
        (folder / file).write_bytes(text[: len(text) // 2])

    return break_it


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return break_it


def without_last_sample(folder: Path) -> None:
    file = folder / "arms/sync/samples.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


BREAKS = [
    (cut("result.json"), "result.json was not written by this harness, or not to its end"),
    (cut("run.json"), "run.json was not written by this harness, or not to its end"),
    (cut("arms/sync/arm.json"), "sync/arm.json was not written by this harness"),
    (cut("arms/sync/samples.jsonl"), "sync/samples.jsonl, line 7 was not written by"),
    (without_last_sample, "sync/samples.jsonl has 11 answers, but 12 were given"),
    (
        replace("arms/sync/events/rank0.jsonl", '"schema": 2', '"schema": 3'),
        "sync/events/rank0.jsonl, line 1: events of schema 3",
    ),
    (replace("arms/sync/events/rank0.jsonl", "{", "("), "rank0.jsonl, line 1: not JSON"),
    (
        lambda folder: (folder / "arms/async/arm.json").unlink(),
        "arm async is missing: there is no .*async/arm.json",
    ),
    (
        lambda folder: (folder / "arms/async/samples.jsonl").unlink(),
        "cannot read .*async/samples.jsonl",
    ),
    (lambda folder: (folder / "result.json").unlink(), "cannot read .*result.json"),
]


@pytest.mark.parametrize(("break_it", "message"), BREAKS)
def test_what_is_broken_is_named(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    folder = as_schema_4(write_kept_run(tmp_path))
    break_it(folder)

    with pytest.raises(EvaluationError, match=message):
        judge_kept([folder])


@pytest.mark.parametrize("break_it", [break_it for break_it, _ in BREAKS])
def test_whatever_is_broken_in_a_run_with_digests_has_no_verdict(
    tmp_path: Path, break_it: Callable[[Path], None]
) -> None:
    folder = write_kept_run(tmp_path)
    break_it(folder)

    with pytest.raises(
        EvaluationError,
        match="so there is no verdict|or not to its end|cannot read|arm async is missing",
    ):
        judge_kept([folder])


def test_a_result_of_another_schema_is_refused(tmp_path: Path) -> None:
    folder = write_kept_run(tmp_path)
    replace("result.json", '"schema": 5', '"schema": 2')(folder)

    with pytest.raises(EvaluationError, match="schema: Input should be 3, 4 or 5"):
        judge_kept([folder])


def test_arms_that_were_asked_other_questions_are_invalid(tmp_path: Path) -> None:
    config = Config.model_validate(small_config())
    others = [*answers(config)[:-1], sample(11, prompt="Question: Another?\nAnswer:")]

    assert judge_kept([write_kept_run(tmp_path, given={"sync": others})]).verdict == "invalid"


def test_runs_in_different_precision_cannot_be_compared(tmp_path: Path) -> None:
    serve = small_config()["serve"]
    in_low = {**serve, "options": {**serve["options"], "dtype": "bfloat16"}}
    folders = [write_kept_run(tmp_path), write_kept_run(tmp_path, "low", serve=in_low)]

    with pytest.raises(EvaluationError, match="their dtype differ, None and bfloat16"):
        judge_kept(folders)


TINY = gsm8k_task(name="gsm_tiny", scored=False)
WHY = "there are no questions"


def write_run_of_two_tasks(runs: Path, name: str, left_out: Any = None, **changes: Any) -> Path:
    return write_kept_run(
        runs, name, left_out=left_out or {}, **{"tasks": [gsm8k_task(), TINY], **changes}
    )


@pytest.mark.parametrize("first", [True, False])
def test_a_task_that_one_run_left_out_is_left_out_of_all(first: bool, tmp_path: Path) -> None:
    both = write_run_of_two_tasks(tmp_path, "both")
    assert {task.name for task in judge_kept([both]).arms[0].tasks} == {"gsm8k", "gsm_tiny"}
    less = write_run_of_two_tasks(tmp_path, "less", {"gsm_tiny": WHY})

    result = judge_kept([less, both] if first else [both, less])
    told = WHY if first else f"run less left it out. {WHY}"
    assert result.left_out == {"gsm_tiny": told}
    assert {task.name for arm in result.arms for task in arm.tasks} == {"gsm8k"}
    assert {rule.task for rule in result.rules} <= {"gsm8k", None}
    assert list(result.task_hashes) == ["gsm8k"]
    assert result.verdict == judge_kept([less]).verdict


def test_runs_that_were_asked_nothing_in_common_cannot_be_judged_together(tmp_path: Path) -> None:
    unscored = {"tasks": [gsm8k_task(scored=False), TINY]}
    one = write_run_of_two_tasks(tmp_path, "one", {"gsm_tiny": WHY}, **unscored)
    other = write_run_of_two_tasks(tmp_path, "two", {"gsm8k": WHY}, **unscored)

    with pytest.raises(EvaluationError, match="each task was left out by one of the runs"):
        judge_kept([one, other])
