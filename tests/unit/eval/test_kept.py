# SPDX-License-Identifier: Apache-2.0
"""Runs that are judged again from their folders, and what is said of those that cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.config.schema import Config, Gate
from eval.errors import EvaluationError
from eval.judging.kept import judge_kept
from eval.load.questions import SEEDS
from eval.results.folder import open_run
from eval.results.machine import this_machine
from eval.results.schema import Result
from tests.builders.arms import VERSIONS, arm, samples, task_run
from tests.builders.harness import gsm8k_task, small_config

LAYERS = 4


def write_events(folder: Path, mode: str) -> None:
    """Six rearrangements while the questions are asked, from 0 to 1."""
    folder.mkdir()
    lines: list[dict[str, Any]] = []
    for number in range(1, 7):
        common = {"rearrangement": number, "step": 10 * number, "mode": mode}
        events: list[tuple[str, dict[str, Any]]] = [("rearrangement_started", common)]
        for layer in range(LAYERS):
            events += [
                ("layer_committed", {**common, "layer": layer, "slots_changed": 1}),
                ("weights_checked", {"layer": layer, "slots": 10, "mismatched_slots": []}),
                ("maps_checked", {"layer": layer, "experts": 8, "mismatched_experts": []}),
            ]
        balance = {"balancedness_before": 0.5, "balancedness_expected": 0.9}
        changed = {"slots_changed": [1] * LAYERS, "bytes_sent": 1, "seconds": 0.1}
        events.append(("rearrangement_finished", {**common, **balance, **changed}))
        for kind, fields in events:
            head = {"schema": 2, "event": kind, "time": number / 10, "stage": 0}
            lines.append(head | {"model": "m", "model_index": 0} | fields)
    for rank in (0, 1):
        of_rank = {"rank": rank, "global_rank": rank}
        text = "".join(json.dumps(line | of_rank) + "\n" for line in lines)
        (folder / f"rank{rank}.jsonl").write_text(text, encoding="utf-8")


def write_run(runs: Path, name: str = "small", **changes: Any) -> Path:
    """A finished run whose result says nothing yet."""
    config = Config.model_validate(small_config(name=name, **changes))
    with open_run(runs, config, VERSIONS, fresh=False) as folder:
        for configured in config.arms:
            here = folder.new_arm_folder(configured.name)
            command = ["vllm", "serve", config.model]
            folder.finish_arm(arm(configured.name, command=command), samples())
            if configured.eplb:
                write_events(here / "events", configured.name)
        folder.finish(
            Result(
                name=name, verdict="not tested", reasons=[], started=folder.state.started,
                finished=folder.state.started, versions=VERSIONS, machine=this_machine(),
                seeds=SEEDS, task_hashes={}, config=config, config_sha256=config.sha256(),
                oracle=None, arms=[],
            )
        )  # fmt: skip
    return runs / name


def test_a_kept_run_is_judged_from_its_answers_and_events(tmp_path: Path) -> None:
    result = judge_kept([write_run(tmp_path)])

    assert (result.verdict, result.reasons) == ("passed", [])
    assert result.arms[1].rearrangements == 6
    assert result.arms[1].slots_changed == [6] * LAYERS


def test_another_gate_gives_another_verdict_and_the_kept_result_stays(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    before = (folder / "result.json").read_bytes()

    result = judge_kept([folder], Gate(identical=True, margin_points=25, rearrangements=7))

    assert result.verdict == "not tested"
    assert result.config.gate.rearrangements == 7
    assert (folder / "result.json").read_bytes() == before


def test_the_arms_of_another_run_are_judged_beside_off_of_the_first(tmp_path: Path) -> None:
    arms = [{"name": "off"}, small_config()["arms"][1]]
    first, other = write_run(tmp_path, arms=arms), write_run(tmp_path, "other", arms=arms)

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
    first, other = write_run(tmp_path), write_run(tmp_path, "other", **changes)

    with pytest.raises(EvaluationError, match=message) as error:
        judge_kept([first, other])
    assert str(first) in str(error.value) and str(other) in str(error.value)


def test_two_runs_of_one_name_are_named(tmp_path: Path) -> None:
    first, other = write_run(tmp_path / "a", "one"), write_run(tmp_path / "b", "two")
    again = write_run(tmp_path / "c", "two")

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


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (cut("result.json"), "result.json was not written by this harness, or not to its end"),
        (cut("run.json"), "run.json was not written by this harness, or not to its end"),
        (cut("arms/sync/arm.json"), "sync/arm.json was not written by this harness"),
        (cut("arms/sync/samples.jsonl"), "sync/samples.jsonl, line 7 was not written by"),
        (without_last_sample, "sync/samples.jsonl has 11 answers, but 12 were given"),
        (replace("result.json", '"schema": 4', '"schema": 2'), "schema: Input should be 3 or 4"),
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
        (
            replace("arms/sync/arm.json", "someone/some-moe", "someone/other-moe"),
            "arm sync did not serve the run's model someone/some-moe",
        ),
        (
            replace("arms/sync/arm.json", '"name": "gsm8k"', '"name": "gsm_tiny"'),
            "arm sync was asked gsm_tiny, the run's tasks are gsm8k",
        ),
    ],
)
def test_what_is_broken_is_named(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    folder = write_run(tmp_path)
    break_it(folder)

    with pytest.raises(EvaluationError, match=message):
        judge_kept([folder])


def test_arms_that_were_asked_other_questions_are_invalid(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    other = arm("sync", command=["vllm", "serve", "someone/some-moe"])
    other = other.model_copy(update={"tasks": arm("x", tasks=[task_run(task_hash="o")]).tasks})
    (folder / "arms/sync/arm.json").write_text(other.model_dump_json())

    assert judge_kept([folder]).verdict == "invalid"


def test_runs_in_different_precision_cannot_be_compared(tmp_path: Path) -> None:
    serve = small_config()["serve"]
    in_low = {**serve, "options": {**serve["options"], "dtype": "bfloat16"}}
    folders = [write_run(tmp_path), write_run(tmp_path, "low", serve=in_low)]

    with pytest.raises(EvaluationError, match="their dtype differ, None and bfloat16"):
        judge_kept(folders)


TINY = gsm8k_task(name="gsm_tiny", scored=False)
WHY = "there are no questions"


def leave_out(run: Path, task: str) -> None:
    """As if the run had not been asked a task."""
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "left_out": {task: WHY}}))


def write_run_of_two_tasks(runs: Path, name: str) -> Path:
    """Its arms were asked both."""
    run = write_run(runs, name, tasks=[gsm8k_task(), TINY])
    for file in (run / "arms").glob("*/arm.json"):
        kept = json.loads(file.read_text())
        kept["tasks"] += [{**kept["tasks"][0], "name": "gsm_tiny", "scored": False}]
        file.write_text(json.dumps(kept))
        answers = file.with_name("samples.jsonl").read_text()
        tiny = answers.replace('"task":"gsm8k"', '"task":"gsm_tiny"')
        file.with_name("samples.jsonl").write_text(answers + tiny)
    return run


@pytest.mark.parametrize("first", [True, False])
def test_a_task_that_one_run_left_out_is_left_out_of_all(first: bool, tmp_path: Path) -> None:
    both = write_run_of_two_tasks(tmp_path, "both")
    assert {task.name for task in judge_kept([both]).arms[0].tasks} == {"gsm8k", "gsm_tiny"}
    less = write_run(tmp_path, "less", tasks=[gsm8k_task(), TINY])
    leave_out(less, "gsm_tiny")

    result = judge_kept([less, both] if first else [both, less])
    told = WHY if first else f"run less left it out. {WHY}"
    assert result.left_out == {"gsm_tiny": told}
    assert {task.name for arm in result.arms for task in arm.tasks} == {"gsm8k"}
    assert {rule.task for rule in result.rules} <= {"gsm8k", None}
    assert list(result.task_hashes) == ["gsm8k"]
    assert result.verdict == judge_kept([less]).verdict


def test_runs_that_were_asked_nothing_in_common_cannot_be_judged_together(tmp_path: Path) -> None:
    unscored = [gsm8k_task(scored=False), TINY]
    one, other = write_run(tmp_path, "one", tasks=unscored), write_run_of_two_tasks(tmp_path, "two")
    result = json.loads((other / "result.json").read_text())
    result["config"]["tasks"][0]["scored"] = False
    (other / "result.json").write_text(json.dumps(result))
    for file in (other / "arms").glob("*/arm.json"):
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({**kept, "tasks": kept["tasks"][1:]}))
        answers = file.with_name("samples.jsonl").read_text().split("\n")
        tiny = [line for line in answers if '"task":"gsm_tiny"' in line]
        file.with_name("samples.jsonl").write_text("\n".join(tiny) + "\n")
    leave_out(one, "gsm_tiny")
    leave_out(other, "gsm8k")

    with pytest.raises(EvaluationError, match="each task was left out by one of the runs"):
        judge_kept([one, other])
