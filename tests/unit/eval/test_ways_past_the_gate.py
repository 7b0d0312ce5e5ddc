# SPDX-License-Identifier: Apache-2.0
"""Runs that looked as if they passed: what each rule says of them, and what has no verdict."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.config.schema import Config
from eval.errors import EvaluationError
from eval.judging.kept import judge_kept
from eval.results.samples import Sample
from eval.results.schema import Result, RuleResult
from tests.builders.arms import sample, samples
from tests.builders.edits import renew_digests
from tests.builders.harness import gsm8k_task, small_config
from tests.builders.kept import answers, as_schema_4, write_kept_run
from tests.builders.run_to_judge import Run, gate

Line = dict[str, Any]
FEW = gate(noise_floor=False)


def change_events(run: Path, arm: str, rank: int, change: Callable[[list[Line]], None]) -> None:
    """Rewrite the events of one rank."""
    file = run / "arms" / arm / "events" / f"rank{rank}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_json(file: Path, change: Callable[[Line], None]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def forget_checks(run: Path) -> None:
    """As if nobody had counted when arm sync was asked."""
    change_json(run / "arms/sync/arm.json", lambda arm: arm.update(weight_checks=0, map_checks=0))


def bad(result: Result) -> list[tuple[str, str | None, str]]:
    return [(one.rule, one.arm, one.verdict) for one in result.rules if one.verdict != "passed"]


def only(result: Result, rule: str, arm: str) -> RuleResult:
    [found] = [one for one in result.rules if (one.rule, one.arm) == (rule, arm)]
    return found


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A run that passes, without the digests that would show every edit."""
    run = as_schema_4(write_kept_run(tmp_path))
    assert judge_kept([run]).verdict == "passed"
    return run


# Nothing moved in an arm without EPLB.


@pytest.mark.parametrize(
    "line",
    [
        "INFO x Rearranging experts (sync mode) ...\n",
        "INFO x Rearranging experts (profile) ...\n",
        "INFO x non-default args: {'enable_eplb': True}\n",
    ],
)
@pytest.mark.parametrize("arm", ["off", "off-again"])
def test_a_log_that_tells_of_eplb_in_an_arm_without_it_fails(
    tmp_path: Path, line: str, arm: str
) -> None:
    arms = [*small_config()["arms"], {"name": "off-again"}]
    run = as_schema_4(write_kept_run(tmp_path, arms=arms))
    log = run / "arms" / arm / "server.log"
    log.write_text(line + log.read_text())

    assert ("no_rearrangements", arm, "failed") in bad(judge_kept([run]))


@pytest.mark.parametrize("log", [None, "", "silence\n"])
def test_an_arm_without_eplb_owes_a_log(kept: Path, log: str | None) -> None:
    file = kept / "arms/off/server.log"
    file.unlink() if log is None else file.write_text(log)

    assert bad(judge_kept([kept])) == [("no_rearrangements", "off", "not tested")]


def test_events_of_rearrangements_in_an_arm_without_eplb_fail(kept: Path) -> None:
    shutil.copytree(kept / "arms/sync/events", kept / "arms/off/events")
    for rank in (0, 1):  # at another time and of another server, so not the same file
        change_events(kept, "off", rank, lambda lines: [line.update(model="n") for line in lines])

    result = judge_kept([kept])
    assert bad(result) == [("no_rearrangements", "off", "failed")]
    assert only(result, "no_rearrangements", "off").saw == "events of 6 rearrangements"


@pytest.mark.parametrize(
    "option",
    ["--enable-eplb", "--enable-epl", "--enable_ep", "--eplb-config.use_async=true", "--ep"],
)
def test_an_option_that_turns_eplb_on_in_off_fails_however_it_is_spelt(option: str) -> None:
    run = Run().change("off", command=["vllm", "serve", "m", option])

    assert run.bad() == [("no_rearrangements", "off", "failed")]


@pytest.mark.parametrize("option", ["--enable-expert-parallel", "--enforce-eager", "--e"])
def test_other_options_are_not_taken_for_those_of_eplb(option: str) -> None:
    assert Run().change("off", command=["vllm", "serve", "m", option]).bad() == []


@pytest.mark.parametrize("renamed", [False, True])
def test_the_folder_of_another_arm_is_found(kept: Path, renamed: bool) -> None:
    shutil.rmtree(kept / "arms/off")
    shutil.copytree(kept / "arms/sync", kept / "arms/off")
    if renamed:
        change_json(kept / "arms/off/arm.json", lambda arm: arm.update(name="off"))

    with pytest.raises(EvaluationError, match=r"off.arm.json"):
        judge_kept([kept])


# Faults count whenever they happen.


def mismatch(kind: str, field: str, time: float) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        fault = next(line for line in lines if line["event"] == kind)
        index = 0 if time < 0 else len(lines)
        lines.insert(index, {**fault, "time": lines[-1]["time"] + time, field: [3]})

    return change


@pytest.mark.parametrize("seconds", [-7.0, 5.0])
@pytest.mark.parametrize(
    ("kind", "field", "rule"),
    [
        ("weights_checked", "mismatched_slots", "weights"),
        ("maps_checked", "mismatched_experts", "maps"),
    ],
)
def test_a_mismatch_before_or_after_the_questions_fails(
    kept: Path, seconds: float, kind: str, field: str, rule: str
) -> None:
    change_events(kept, "sync", 1, mismatch(kind, field, seconds))

    assert bad(judge_kept([kept])) == [(rule, "sync", "failed")]


def test_what_moves_before_the_questions_does_not_count(kept: Path) -> None:
    for rank in (0, 1):
        change_events(
            kept,
            "sync",
            rank,
            lambda lines: [line.update(time=line["time"] - 500) for line in lines],
        )

    with pytest.raises(EvaluationError, match="tells of fewer rearrangements .* 0 of 6"):
        judge_kept([kept])


# Every rank's evidence.


def without_slots(lines: list[Line]) -> None:
    for line in lines:
        if line["event"] == "rearrangement_finished":
            line["slots_changed"] = [0] * len(line["slots_changed"])


def without_commits(lines: list[Line]) -> None:
    lines[:] = [line for line in lines if line["event"] != "layer_committed"]


def other_mode(lines: list[Line]) -> None:
    for line in lines:
        if "mode" in line:
            line["mode"] = "async"


def first_outcomes(count: int) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        ends = [n for n, line in enumerate(lines) if line["event"] == "rearrangement_finished"]
        del lines[ends[count - 1] + 1 :]

    return change


def of_rank_0(lines: list[Line]) -> None:
    for line in lines[5:]:
        line.update(rank=0, global_rank=0)


def without_third(lines: list[Line]) -> None:
    lines[:] = [line for line in lines if line.get("rearrangement") != 3]


def dropped(lines: list[Line]) -> None:
    head = {name: lines[0][name] for name in ("schema", "time", "rank", "global_rank", "stage")}
    lines.insert(0, {**head, "event": "events_dropped", "number": 5, "reason": "full"})


def back_in_time(lines: list[Line]) -> None:
    lines[-1]["time"] -= 3


def plans(change: Callable[[Line], object]) -> Callable[[list[Line]], None]:
    def change_all(lines: list[Line]) -> None:
        for line in lines:
            if line["event"] == "rearrangement_planned":
                change(line)

    return change_all


@pytest.mark.parametrize(
    ("change", "verdict", "saw"),
    [
        (plans(lambda line: line.update(policy="mine")), "failed", "tells otherwise of rearr"),
        (
            plans(lambda line: line.update(experts_received=[2, 1, 1, 1])),
            "failed",
            "moves in rearrangement 1 that its slots do not allow",
        ),
        (
            plans(lambda line: line.update(bytes_received=[1000, 999])),
            "failed",
            "moves in rearrangement 1 that its slots do not allow",
        ),
        (without_slots, "failed", "other slots when rearrangement 1 ends"),
        (without_commits, "failed", "other slots when rearrangement 1 ends"),
        (other_mode, "failed", "tells otherwise of rearrangement 1"),
        (first_outcomes(2), "not tested", "rank1.jsonl tells 2 outcomes of 6"),
        (of_rank_0, "not tested", "rank1.jsonl holds events of rank 0, 1"),
        (without_third, "not tested", "the outcome of rearrangement 4 where that of 3 is due"),
        (dropped, "not tested", "rank 1 could not write 5 events"),
        (back_in_time, "not tested", "the times in rank1.jsonl go back"),
        (list.clear, "not tested", "rank1.jsonl is empty"),
    ],
)
@pytest.mark.parametrize("check_weights", [True, False])
def test_a_rank_that_contradicts_or_lacks_evidence_is_found(
    tmp_path: Path,
    change: Callable[[list[Line]], None],
    verdict: str,
    saw: str,
    check_weights: bool,
) -> None:
    run = as_schema_4(write_kept_run(tmp_path, plugin={"check_weights": check_weights}))
    forget_checks(run)
    change_events(run, "sync", 1, change)

    result = judge_kept([run])
    rule = only(result, "ranks_agree", "sync")
    assert (rule.verdict, saw in rule.saw) == (verdict, True), rule.saw
    assert result.verdict == verdict


def test_one_outcome_may_be_cut_off_at_the_end(kept: Path) -> None:
    forget_checks(kept)
    change_events(kept, "sync", 1, first_outcomes(5))

    assert only(judge_kept([kept]), "ranks_agree", "sync").verdict == "passed"


def test_a_missing_or_doubled_file_of_a_rank_is_found(kept: Path) -> None:
    events = kept / "arms/sync/events"
    forget_checks(kept)
    (events / "rank1.jsonl").rename(events / "other")
    assert "2 ranks should tell, and 1 do" in only(judge_kept([kept]), "ranks_agree", "sync").saw
    (events / "other").rename(events / "rank1.jsonl")
    shutil.copy(events / "rank1.jsonl", events / "rank2.jsonl")
    change_events(kept, "sync", 2, lambda lines: lines[0].update(step=11))
    saw = only(judge_kept([kept]), "ranks_agree", "sync").saw
    assert "rank2.jsonl holds events of rank 1" in saw
    assert "rank1.jsonl and rank2.jsonl are of the same rank" in saw


def test_a_file_that_ends_in_a_line_before_the_last_answer_is_found(kept: Path) -> None:
    file = kept / "arms/sync/events/rank1.jsonl"
    file.write_text(file.read_text() + '{"schema": 2')

    saw = only(judge_kept([kept]), "ranks_agree", "sync").saw
    assert saw == "rank1.jsonl is cut off in a line"


@pytest.mark.parametrize("time", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"12"'])
def test_a_time_that_is_none_makes_the_file_unreadable(kept: Path, time: str) -> None:
    file = kept / "arms/sync/events/rank1.jsonl"
    first, rest = file.read_text().split("\n", 1)
    values = json.loads(first)
    file.write_text(first.replace(json.dumps(values["time"]), time) + "\n" + rest)

    with pytest.raises(EvaluationError, match="rank1.jsonl, line 1"):
        judge_kept([kept])


# A run is not evidence beside itself.


def same(run: Path, copy: Path) -> None:
    """The very folder."""


def link(run: Path, copy: Path) -> None:
    copy.symlink_to(run)


def renamed_copy(run: Path, copy: Path) -> None:
    shutil.copytree(run, copy)
    change_json(copy / "result.json", lambda result: result.update(name="other"))
    renew_digests(copy)


def changed_copy(run: Path, copy: Path) -> None:
    renamed_copy(run, copy)
    for file in (copy / "result.json", *copy.glob("arms/*/arm.json")):
        text = file.read_text().replace('"tokens_per_second": 12.5', '"tokens_per_second": 12.6')
        file.write_text(text)
    renew_digests(copy)


@pytest.mark.parametrize("make", [same, link, renamed_copy, changed_copy])
@pytest.mark.parametrize("schema", [4, 5])
def test_a_run_is_not_its_own_noise_floor(
    tmp_path: Path, make: Callable[[Path, Path], None], schema: int
) -> None:
    run = write_kept_run(tmp_path)
    if schema == 4:
        as_schema_4(run)
    copy = tmp_path / "copy"
    make(run, copy)

    message = "one and the same|named twice"
    with pytest.raises(EvaluationError, match=message):
        judge_kept([run, copy if copy.exists() else run])


def test_an_arm_that_is_a_copy_of_off_does_not_repeat_it(tmp_path: Path) -> None:
    arms = [*small_config()["arms"], {"name": "off-again"}]
    run = as_schema_4(write_kept_run(tmp_path, arms=arms))
    again = run / "arms/off-again"
    shutil.rmtree(again)
    shutil.copytree(run / "arms/off", again)
    file = again / "arm.json"
    file.write_text(file.read_text().replace("arms/off/", "arms/off-again/"))
    change_json(file, lambda arm: arm.update(name="off-again"))
    kept = json.loads(file.read_text())
    change_json(
        run / "result.json",
        lambda result: result["arms"][-1].update({**kept, "tasks": result["arms"][0]["tasks"]}),
    )

    with pytest.raises(EvaluationError, match="the time of the first question is equal"):
        judge_kept([run])


# Something was tested.


@pytest.mark.parametrize("names", [["off"], ["off", "off-again"]])
def test_without_an_arm_with_eplb_nothing_was_tested(tmp_path: Path, names: list[str]) -> None:
    run = write_kept_run(tmp_path, arms=[{"name": name} for name in names])

    assert bad(judge_kept([run])) == [("arms_with_eplb", None, "not tested")]


def with_text(text: str) -> list[Sample]:
    from eval.judging.scoring import score

    return [
        one.model_copy(update={"text": text, **score(one.task, text, one.target)._asdict()})
        for one in answers(Config.model_validate(small_config()))
    ]


@pytest.mark.parametrize("text", ["", " \n", "garbage"])
def test_answers_that_are_none_or_all_the_same_test_nothing(tmp_path: Path, text: str) -> None:
    given = {name: with_text(text) for name in ("off", "sync", "async")}
    result = judge_kept([write_kept_run(tmp_path, given=given)])

    assert result.verdict == "not tested"
    assert ("all_answered", "off", "not tested") in bad(result)
    assert ("paired_accuracy", "sync", "not tested") in bad(result)


@pytest.mark.parametrize(("right", "tested"), [(12, True), (8, True), (7, False), (0, False)])
def test_off_must_be_right_often_enough_for_a_loss_to_show(right: int, tested: bool) -> None:
    run = Run(gate=gate(margin_points=25))
    for name in run.answers:
        run.answers[name] = [sample(number, correct=number < right) for number in range(12)]

    rule = run.only("paired_accuracy", "sync")
    assert (rule.verdict == "passed") == tested
    assert tested or f"arm off has {right} of 12 answers right, so few that" in rule.detectable


def test_a_margin_that_off_cannot_lose_is_not_excluded() -> None:
    run = Run(gate=gate(margin_points=80))

    assert run.only("paired_accuracy", "sync").verdict == "not tested"
    assert "a loss of 80 points may not be possible" in run.only("paired_accuracy", "sync").saw


def copies(number: int) -> Sequence[Sample]:
    """The first question again and again, under other numbers and with other answers."""
    first = samples()[0]
    return [
        first.model_copy(update={"doc_id": doc_id, "text": f"{first.text}{' ' * doc_id}"})
        for doc_id in range(number)
    ]


def test_copies_of_one_question_are_one_question() -> None:
    run = Run()
    for name in run.answers:
        run.answers[name] = copies(12)

    rule = run.only("all_answered", "sync")
    assert (rule.verdict, rule.saw) == (
        "not tested",
        "1 of 12 questions answered, no request failed; only 1 different question",
    )


# What decides is computed again.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strict_correct", False),
        ("flexible_correct", False),
        ("strict_match", "8"),
        ("flexible_extract", "8"),
        ("prompt_hash", "0" * 64),
        ("target_hash", "0" * 64),
        ("prompt", "Question: Another?\nAnswer:"),
        ("target", "#### 8"),
        ("text", " #### 8"),
    ],
)
def test_a_field_that_does_not_follow_from_the_answer_is_named(
    kept: Path, field: str, value: object
) -> None:
    file = kept / "arms/sync/samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[4][field] = value
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    with pytest.raises(EvaluationError, match=r"sync/samples.jsonl, line 5: \w+ is"):
        judge_kept([kept])


@pytest.mark.parametrize(
    ("field", "value"),
    [("task_hash", "0" * 64), ("accuracy", 0.5), ("accuracy_flexible", 0.5)],
)
def test_a_sum_that_does_not_follow_from_the_answers_is_named(
    kept: Path, field: str, value: object
) -> None:
    for file in (kept / "result.json", kept / "arms/sync/arm.json"):
        change_json(
            file,
            lambda values: values.get("arms", [0, values])[1]["tasks"][0].update({field: value}),
        )

    with pytest.raises(EvaluationError, match=rf"sync/arm.json: {field} of gsm8k is"):
        judge_kept([kept])


def test_the_oracle_is_compared_again(tmp_path: Path, kept: Path) -> None:
    texts = kept / "oracle/answers.json"
    change_json(texts, lambda values: values["texts"].__setitem__(0, "other"))
    with pytest.raises(EvaluationError, match="oracle.json tells of 3 of 3 identical answers"):
        judge_kept([kept])

    found = {"prompts": 3, "identical": 2, "different": [0], "seconds": 1.5}
    change_json(kept / "oracle.json", lambda values: values.update(found))
    with pytest.raises(EvaluationError, match=r"oracle is prompts=3 .* in .*oracle.json it is"):
        judge_kept([kept])

    change_json(kept / "result.json", lambda values: values.update(oracle=found))
    assert bad(judge_kept([kept])) == [("oracle_answers", "off", "failed")]

    change_json(
        kept / "oracle/request.json", lambda values: values["prompts"].__setitem__(0, "other")
    )
    with pytest.raises(EvaluationError, match="request.json has other prompts than arm off"):
        judge_kept([kept])


def test_an_oracle_whose_answers_are_gone_tests_nothing(kept: Path) -> None:
    shutil.rmtree(kept / "oracle")

    assert bad(judge_kept([kept])) == [("oracle_answers", "off", "not tested")]


# Digests.


def test_a_run_with_digests_passes_without_a_note_and_one_without_is_told_of(
    tmp_path: Path,
) -> None:
    run = write_kept_run(tmp_path)
    assert (judge_kept([run]).verdict, judge_kept([run]).notes) == ("passed", [])
    [note] = judge_kept([as_schema_4(run)]).notes
    assert "schema 4 has no digests, so nothing ties its files together" in note


@pytest.mark.parametrize("field", ["files", "run"])
def test_a_run_of_today_without_digests_or_identity_has_no_verdict(
    tmp_path: Path, field: str
) -> None:
    run = write_kept_run(tmp_path)
    change_json(run / "result.json", lambda result: result.pop(field))

    with pytest.raises(EvaluationError, match="no verdict|run is , in"):
        judge_kept([run])


def test_events_that_were_added_have_no_digest(tmp_path: Path) -> None:
    run = write_kept_run(tmp_path)
    shutil.copy(run / "arms/sync/events/rank1.jsonl", run / "arms/sync/events/rank2.jsonl")

    with pytest.raises(EvaluationError, match="rank2.jsonl has no digest"):
        judge_kept([run])


def test_an_arm_that_the_configuration_lacks_is_named(kept: Path) -> None:
    def take_away(result: Line) -> None:
        result["config"]["arms"].pop()
        result["arms"].pop()
        result["config_sha256"] = Config.model_validate(result["config"]).sha256()
        change_json(
            kept / "run.json", lambda run: run.update(config_sha256=result["config_sha256"])
        )

    change_json(kept / "result.json", take_away)

    with pytest.raises(EvaluationError, match="async/arm.json is of an arm that the configuration"):
        judge_kept([kept])


# What a fresh pair of eyes found.


def with_a_start_of_an_earlier_server(lines: list[Line]) -> None:
    lines.insert(0, {**lines[0], "time": lines[0]["time"] - 300})


def with_a_start_more(lines: list[Line]) -> None:
    starts = [n for n, line in enumerate(lines) if line["event"] == "rearrangement_started"]
    lines.insert(starts[3], lines[starts[3]])


def of_another_model_later(lines: list[Line]) -> None:
    for line in lines[len(lines) // 2 :]:
        line.update(model="another")


@pytest.mark.parametrize(
    ("change", "saw"),
    [
        (with_a_start_of_an_earlier_server, "rearrangement 1 starts where the outcome of one"),
        (with_a_start_more, "rearrangement 4 starts where the outcome of one is due"),
        (of_another_model_later, "holds events of models m and another"),
    ],
)
def test_events_of_two_servers_in_one_file_are_found(
    kept: Path, change: Callable[[list[Line]], None], saw: str
) -> None:
    for rank in (0, 1):
        change_events(kept, "sync", rank, change)

    result = judge_kept([kept])
    assert bad(result) == [("ranks_agree", "sync", "not tested")]
    assert saw in only(result, "ranks_agree", "sync").saw


def test_a_rank_whose_checks_were_of_no_slot_checked_nothing(kept: Path) -> None:
    def change(lines: list[Line]) -> None:
        for line in lines:
            if line["event"] == "weights_checked":
                line["slots"] = 0

    change_events(kept, "sync", 1, change)
    forget_checks(kept)

    assert bad(judge_kept([kept])) == [("weights", "sync", "not tested")]


def test_layers_of_which_fewer_than_no_slot_changed_did_not_change(kept: Path) -> None:
    def change(lines: list[Line]) -> None:
        for line in lines:
            if line["event"] == "layer_committed":
                line["slots_changed"] = -1
            if line["event"] == "rearrangement_finished":
                line["slots_changed"] = [-1] * len(line["slots_changed"])

    for rank in (0, 1):
        change_events(kept, "sync", rank, change)

    # Nor can experts have been received there.
    assert bad(judge_kept([kept])) == [
        ("ranks_agree", "sync", "failed"),
        ("slots_changed", "sync", "not tested"),
    ]


@pytest.mark.parametrize(
    "plugin", [{}, {"check_weights": False}, {"check_weights": 1}, {"enabled": False}]
)
def test_wrong_weights_fail_where_none_had_to_be_checked(
    tmp_path: Path, plugin: dict[str, Any]
) -> None:
    run = write_kept_run(tmp_path, plugin=plugin, mismatched=["sync"])

    assert ("weights", "sync", "failed") in bad(judge_kept([run]))


@pytest.mark.parametrize("wrong", [0, 12])
def test_where_all_answers_may_differ_nothing_was_tested(tmp_path: Path, wrong: int) -> None:
    others = [sample(number, f" nonsense {number}", correct=False) for number in range(wrong)]
    given = {"async": [*others, *answers(Config.model_validate(small_config()))[wrong:]]}
    asked = [gsm8k_task(scored=False)]
    run = write_kept_run(
        tmp_path, tasks=asked, gate=gate(different_answers=12), given=given, oracle={"prompts": 0}
    )

    found = only(judge_kept([run]), "identical_answers", "async")
    assert (found.verdict, found.saw) == (
        "not tested",
        f"{wrong} of 12 answers differ from arm off; all of them may",
    )


@pytest.mark.parametrize("option", ["quantization", "revision"])
def test_runs_of_other_weights_cannot_be_compared(tmp_path: Path, option: str) -> None:
    serve = small_config()["serve"]
    other = {**serve, "options": {**serve["options"], option: "fp8"}}
    runs = [write_kept_run(tmp_path), write_kept_run(tmp_path, "other", serve=other)]

    with pytest.raises(EvaluationError, match=f"their {option} differ, None and fp8"):
        judge_kept(runs)


def test_a_long_name_of_a_run_is_no_error(tmp_path: Path) -> None:
    runs = [write_kept_run(tmp_path), write_kept_run(tmp_path, "x" * 100)]

    assert judge_kept(runs).verdict == "passed"


def test_a_run_whose_arms_would_be_taken_for_controls_is_refused(tmp_path: Path) -> None:
    runs = [write_kept_run(tmp_path), write_kept_run(tmp_path, "control-1")]

    with pytest.raises(EvaluationError, match="control- begins the names of arms with a fault"):
        judge_kept(runs)
    assert judge_kept(runs[::-1]).verdict == "passed"
