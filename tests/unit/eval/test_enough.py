# SPDX-License-Identifier: Apache-2.0
"""Arms that are asked until their comparison with ``off`` is decided, and how they are judged."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from eval.commands.stopping import batches_of, told_beforehand
from eval.config.gate_section import Gate
from eval.config.schema import Config
from eval.errors import GateError
from eval.judging.controls import add_controls, judge_controls
from eval.judging.kept import judge_kept
from eval.load.batches import ALL_AT_ONCE, Asked
from eval.report.runs import read_runs
from eval.report.viewing import view_of_runs
from eval.results.samples import Sample
from eval.results.schema import Result, RuleResult
from tests.builders.arms import arm, sample
from tests.builders.edits import renew_digests
from tests.builders.harness import gsm8k_task, small_config
from tests.builders.kept import task_run, write_kept_run
from tests.builders.run_to_judge import Run, gate

ALL = 500
"""Questions of gsm_tiny."""
TASK = gsm8k_task(name="gsm_tiny", questions="enough")
GATE = gate(identical=False, noise_floor=False, margin_points=3)
ARMS = small_config()["arms"][:2]
AGAIN = {"name": "off-again"}


def first(count: int, wrong: Collection[int] = (), **changes: Any) -> list[Sample]:
    """Answers to the first questions."""
    return [
        sample(doc_id, task="gsm_tiny", correct=doc_id not in wrong, **changes)
        for doc_id in range(count)
    ]


def config_with(**changes: Any) -> Config:
    values = {"tasks": [TASK], "gate": GATE, "arms": ARMS, **changes}
    return Config.model_validate(small_config(**values))


def kept(runs: Path, asked: int = 200, wrong: Collection[int] = (), **changes: Any) -> Path:
    """A run whose arm sync was asked so many questions, and had some wrong."""
    values = {"tasks": [TASK], "gate": GATE, "arms": ARMS, **changes}
    given = {"sync": first(asked, wrong)} | values.pop("given", {})
    return write_kept_run(runs, given=given, **values)


def rules(result: Result, arm: str = "sync") -> dict[str, RuleResult]:
    return {one.rule: one for one in result.rules if one.arm == arm}


def test_an_arm_that_stopped_with_all_evidence_passes(tmp_path: Path) -> None:
    result = judge_kept([kept(tmp_path)])

    assert (result.verdict, result.reasons) == ("passed", [])
    found = rules(result)
    assert found["all_answered"].saw == "200 of 200 questions answered, no request failed"
    assert found["paired_accuracy"].saw == (
        "200 of 200 right, 200 in arm off: 0 lost, 0 won; one of the margin is excluded after 200 "
        "questions, 2 looks of at most 500 questions; losses over 2.3 points are excluded at 95 %"
    )
    [task] = result.arms[1].tasks
    assert (task.questions, task.identical_to_off) == (200, 200)
    assert task.decision is not None
    assert task.decision.model_dump() == {
        "found": "no loss", "found_after": 200, "looks": 2, "at_most": ALL, "alpha": 0.01,
        "margin_points": 3.0,
    }  # fmt: skip
    assert result.arms[0].tasks[0].decision is None


def test_a_loss_that_is_shown_at_a_look_fails(tmp_path: Path) -> None:
    result = judge_kept([kept(tmp_path, 300, range(0, 100, 5))])

    assert result.verdict == "failed"
    saw = rules(result)["paired_accuracy"].saw
    assert "20 lost, 0 won; a loss is shown after 100 questions, 3 looks of" in saw


@pytest.mark.parametrize(
    ("asked", "wrong", "verdict"),
    [(100, (), "not tested"), (199, (), "not tested"), (200, (7, 8, 9), "not tested"),
     (ALL, (7, 8, 9), "passed")],
)  # fmt: skip
def test_questions_that_decide_nothing_are_not_tested_however_many(
    asked: int, wrong: Collection[int], verdict: str, tmp_path: Path
) -> None:
    assert judge_kept([kept(tmp_path, asked, wrong)]).verdict == verdict


def test_all_questions_may_decide_nothing(tmp_path: Path) -> None:
    given = {"off": first(ALL, range(1, 4))}
    result = judge_kept([kept(tmp_path, ALL, range(0, 440, 40), given=given)])

    assert result.verdict == "not tested"
    saw = rules(result)["paired_accuracy"].saw
    assert "11 lost, 3 won; neither a loss is shown nor one of the margin excluded, 5 looks" in saw


def test_the_answers_of_the_last_batch_count_only_once_it_is_whole(tmp_path: Path) -> None:
    saw = rules(judge_kept([kept(tmp_path, 299, range(201, 299))]))["paired_accuracy"].saw

    assert "201 of 299 right" in saw
    assert "one of the margin is excluded after 200 questions, 2 looks" in saw


def test_an_off_that_has_nearly_nothing_right_is_not_tested(tmp_path: Path) -> None:
    wrong = range(10, ALL)
    given = {"off": first(ALL, wrong)}
    result = judge_kept([kept(tmp_path, 200, wrong, given=given)])

    assert result.verdict == "not tested"
    assert "arm off has 10 of 200 answers right" in rules(result)["paired_accuracy"].saw


def test_an_arm_without_a_whole_batch_lacks_questions(tmp_path: Path) -> None:
    found = rules(judge_kept([kept(tmp_path, 50)]))

    assert found["all_answered"].verdict == found["paired_accuracy"].verdict == "not tested"
    assert found["all_answered"].saw == "50 of 100 questions answered, no request failed"


def test_off_must_be_asked_all(tmp_path: Path) -> None:
    result = judge_kept([kept(tmp_path, given={"off": first(400)})])

    assert result.reasons == [
        "all_answered, arm off, gsm_tiny: 400 of 500 questions answered, no request failed"
    ]


def test_an_arm_that_was_asked_others_than_the_first_is_invalid(tmp_path: Path) -> None:
    others = first(300)[100:]

    assert judge_kept([kept(tmp_path, given={"sync": others})]).verdict == "invalid"


@pytest.mark.parametrize(("again", "verdict"), [(ALL, "passed"), (200, "invalid")])
def test_a_repeat_of_off_must_be_asked_all_and_is_compared_by_what_the_arm_was_asked(
    again: int, verdict: str, tmp_path: Path
) -> None:
    # What flips in the repeat afterwards says nothing of the arm.
    flipping = range(200, 220)
    given = {"off-again": first(again, flipping), "off": first(ALL, range(220, 240))}
    arms = [ARMS[0], AGAIN, ARMS[1]]
    result = judge_kept(
        [kept(tmp_path, given=given, arms=arms, gate={**GATE, "noise_floor": True})]
    )

    assert result.verdict == verdict
    if verdict == "passed":
        assert "40 answers flip (8.0 %)" in rules(result, "off-again")["noise_floor"].saw
        assert "0.0 % flip in arm off-again" in rules(result)["noise_floor"].saw


def test_another_gate_looks_at_the_same_answers_again(tmp_path: Path) -> None:
    folder = kept(tmp_path)

    def judged(margin: float | None) -> str:
        values = {**GATE, "margin_points": margin}
        return judge_kept([folder], Gate.model_validate(values)).verdict

    assert [judged(margin) for margin in (1, 2.9, 10, None)] == [
        "not tested", "passed", "passed", "passed",
    ]  # fmt: skip


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change what is kept of arm sync's task, and make every digest fit again."""
    for file in (folder / "arms/sync/arm.json", folder / "result.json"):
        values = json.loads(file.read_text())
        arms = [one for one in values.get("arms", [values]) if one["name"] == "sync"]
        edit(arms[0]["tasks"][0])
        file.write_text(json.dumps(values))
    renew_digests(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("found", "undecided"), ("found_after", 100), ("looks", 3), ("at_most", 1319),
     ("alpha", 0.005), ("margin_points", 4.0)],
)  # fmt: skip
def test_a_decision_that_does_not_follow_from_the_answers_is_refused(
    field: str, value: object, tmp_path: Path
) -> None:
    folder = kept(tmp_path)
    change(folder, lambda task: task["decision"].update({field: value}))

    with pytest.raises(GateError, match=r"arms/sync/arm.json: the decision of gsm_tiny is kept as"):
        judge_kept([folder])


def test_a_decision_that_is_missing_is_refused(tmp_path: Path) -> None:
    folder = kept(tmp_path)
    change(folder, lambda task: task.update(decision=None))

    with pytest.raises(GateError, match="is kept as None"):
        judge_kept([folder])


def test_a_report_tells_the_loss_that_all_looks_together_do_not_exclude(tmp_path: Path) -> None:
    view = view_of_runs(read_runs([kept(tmp_path)]))

    [pairs] = view.pairs
    assert pairs.answers.largest_loss == pytest.approx(2.276, abs=0.001)


@pytest.mark.parametrize("questions", [48, 350, None])
def test_controls_are_compared_by_what_the_sound_arm_was_asked(questions: int | None) -> None:
    controls = {"questions": questions}
    config = config_with(controls=controls, plugin={"loopback": True, "check_weights": True})
    run = Run()
    run.config = config = add_controls(config, ["weights_not_moved"])
    control = config.arms[-1]
    limit = config.tasks_of(control)[0].questions
    assert limit == (questions or ALL)
    run.answers = {
        "off": first(ALL),
        "sync": first(200),
        control.name: first(int(limit), range(0, ALL, 2)),
    }
    kept_of_sync = {"found": "no loss", "found_after": 200, "looks": 2, "at_most": ALL}
    made = {**kept_of_sync, "alpha": 0.01, "margin_points": 3}
    for name, answers in run.answers.items():
        asked = task_run("gsm_tiny", answers).model_dump()
        asked["decision"] = made if name == "sync" else None
        run.runs[name] = arm(name if name == "off" else "sync", tasks=[asked])
        run.agreements[name] = run.agreements["off" if name == "off" else "sync"]
        run.logs[name] = run.logs["off" if name == "off" else "sync"]

    [result] = judge_controls(config, run.arms(), {}).results
    assert result.caught_by == ["paired_accuracy"]
    assert f"of {min(questions or ALL, 200)} right" in result.saw[0]


@pytest.mark.parametrize(
    ("by_vllm", "by_another", "verdict"), [(200, 400, "passed"), (500, 40, "failed")]
)
def test_bytes_are_compared_by_question_where_fewer_were_asked(
    by_vllm: int, by_another: int, verdict: str, tmp_path: Path
) -> None:
    """The policy of vLLM's moves ten times as much."""
    eplb, plugin = ARMS[1]["eplb"], {"planning": {"policy": "incremental"}}
    arms = [*ARMS, {"name": "sync-incremental", "eplb": eplb, "plugin": plugin}]
    given = {"sync-incremental": first(by_another)}
    shared = {**GATE, "share_of_bytes": 0.5}
    folder = kept(tmp_path, by_vllm, arms=arms, gate=shared, given=given)

    rule = rules(judge_kept([folder]), "sync-incremental")["fewer_bytes"]
    assert rule.verdict == verdict
    assert f", with {by_another} and {by_vllm} questions; in one rearrangement" in rule.saw


def asked(count: int, wrong: Collection[int] = ()) -> Asked:
    return Asked([one.text for one in first(count, wrong)], 1.0, 2.0)


def stops(config: Config, arm: int, answers: Asked, moved: bool = True) -> bool:
    """Whether an arm, which is configured there, is asked no more."""
    one = config.arms[arm]
    batches = batches_of(config, one, config.tasks_of(one)[0], first(ALL), lambda _: moved)
    return batches.enough(answers)


def test_an_arm_is_asked_until_its_comparison_is_decided() -> None:
    config = config_with()

    assert not stops(config, 1, asked(100))
    assert stops(config, 1, asked(200))
    assert not stops(config, 1, asked(200, [7, 8, 9]))
    assert stops(config, 1, asked(100, range(20)))


def test_an_arm_goes_on_until_its_experts_moved_enough_unless_it_failed() -> None:
    config = config_with()

    assert not stops(config, 1, asked(200), moved=False)
    assert stops(config, 1, asked(100, range(20)), moved=False)


def test_off_and_its_repeats_are_asked_all_in_the_same_batches() -> None:
    config = config_with(arms=[ARMS[0], AGAIN, ARMS[1]])

    for number in (0, 1):
        assert not stops(config, number, asked(400))
    sizes = [batches_of(config, one, config.tasks[0], [], bool).size for one in config.arms]
    assert sizes == [100, 100, 100]
    fixed = config_with(tasks=[{**TASK, "questions": 12}])
    assert batches_of(fixed, fixed.arms[1], fixed.tasks[0], [], bool) is ALL_AT_ONCE


def test_how_many_questions_it_may_be_is_told_beforehand() -> None:
    [line] = told_beforehand(config_with(arms=[ARMS[0], AGAIN, ARMS[1]]))

    assert line == (
        "gsm_tiny: asks 500 questions in off, off-again; in every other arm at most so many, 100 "
        "at a time, until a loss of 3 points is decided: about 200 if no answer flips, 426 if 5 % "
        "do without a loss, and more where experts do not move enough"
    )
    assert [*told_beforehand(Config.model_validate(small_config()))] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": [{**TASK, "scored": False}]}, "and not scored: true: add it"),
        ({"gate": {**GATE, "margin_points": None}}, "and not gate.margin_points: add it"),
    ],
)
def test_what_nothing_could_decide_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_with(**changes)
