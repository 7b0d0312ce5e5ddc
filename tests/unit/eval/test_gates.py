# SPDX-License-Identifier: Apache-2.0
"""Which runs pass the gate, and what each rule says of the others."""

from typing import Any

import pytest
from scipy.stats import binom

from eval.activity.totals import ModelActivity
from eval.config.schema import Config
from eval.judging.recorded import RecordedAccuracy
from eval.judging.verdict import (
    alpha_of_one_comparison,
    arm_rules,
    reasons,
    repeats_of_off,
    verdict,
)
from eval.results.oracle_result import OracleResult
from tests.builders.arms import QUESTIONS, arm, sample, samples, task_run
from tests.builders.harness import gsm8k_task, small_config
from tests.builders.run_to_judge import Run, gate, paired, scored

STOCK = {"enabled": False, "check_weights": False}


def test_equal_answers_with_all_evidence_pass_and_every_rule_is_told() -> None:
    results = Run().rules()

    assert (verdict(results), reasons(results)) == ("passed", [])
    in_sync = {result.rule for result in results if result.arm == "sync"}
    assert in_sync == {
        "same_questions", "all_answered", "ranks_agree", "rearrangements", "slots_changed",
        "no_stall", "no_failed_rearrangements", "no_rejected_placements", "mode", "weights", "maps",
        "identical_answers", "paired_accuracy",
    }  # fmt: skip
    assert all(result.saw and result.limit and result.detectable for result in results)


def test_outcomes_other_than_finished_are_told_and_only_what_failed_fails() -> None:
    run = Run().change("sync", skipped=2, drained=1)
    assert run.bad() == []
    told = "6 rearrangements finished while the questions were asked; 2 skipped, 1 drained"
    assert run.only("rearrangements", "sync").saw == told

    run = Run().change("sync", failed=2, failures=["RuntimeError: gone", "a later one started"])
    assert reasons(run.rules()) == [
        "no_failed_rearrangements, arm sync: 2 of 8 rearrangements failed: RuntimeError: gone; "
        "a later one started"
    ]


def test_an_arm_whose_placements_are_all_rejected_moved_nothing() -> None:
    nothing = {"rearrangements": 0, "slots_changed": [], "usual_seconds": None, "models": []}
    run = Run().change("sync", placements_rejected=6, **nothing)

    assert run.bad() == [
        ("rearrangements", "sync", "not tested"),
        ("slots_changed", "sync", "not tested"),
        ("no_rejected_placements", "sync", "failed"),
    ]
    saw = run.only("no_rejected_placements", "sync").saw
    assert saw == "6 placements of 6 rearrangements rejected"


def test_a_layer_that_stays_is_named_with_its_model() -> None:
    models = [
        ModelActivity(model="main", model_index=0, stage=0, finished=6, slots_changed=[3, 3]),
        ModelActivity(model="draft", model_index=1, stage=0, finished=6, slots_changed=[4, 0]),
    ]
    run = Run().change("sync", models=models, slots_changed=[3, 3, 4, 0])

    assert run.only("slots_changed", "sync").saw == "no slot changed in MoE layer 1 of draft"
    assert run.only("no_failed_rearrangements", "sync").saw == "0 of 12 rearrangements failed"


def test_weights_that_a_rank_did_not_check_are_not_tested() -> None:
    run = Run().change("async", checking_ranks=[0])

    assert run.bad() == [("weights", "async", "not tested")]
    assert run.only("weights", "async").saw.endswith("; no check by rank 1")


def test_a_gate_without_rules_is_not_tested() -> None:
    assert verdict([]) == "not tested"


def test_one_different_answer_fails_where_all_must_be_identical() -> None:
    run = Run()
    run.answers["async"] = samples(q3="other")

    assert verdict(run.rules()) == "failed"
    assert reasons(run.rules()) == [
        "identical_answers, arm async, gsm8k: 1 of 12 answers differ from arm off"
    ]


def test_as_many_answers_may_differ_as_the_gate_allows_and_no_more() -> None:
    run = Run(gate=gate(different_answers=1))
    run.answers["async"] = samples(q3="other")
    assert run.bad() == []

    run.answers["async"] = samples(q3="other", q4="other")
    assert run.bad() == [("identical_answers", "async", "failed")]


@pytest.mark.parametrize(("allowed", "share"), [(0, "0.6"), (2, "1.3"), (500, "100.0")])
def test_what_an_allowance_can_miss_is_told(allowed: int, share: str) -> None:
    run = paired(scored(right=500), gate=gate(identical=True, different_answers=allowed))

    (rule,) = (one for one in run.rules() if one.rule == "identical_answers")
    assert rule.detectable == f"a fault that changes {share} % of answers, with probability 0.95"
    found = binom.cdf(allowed, 500, min(1, float(share) / 100 + 0.0005))
    assert allowed == 500 or found < 0.05 < binom.cdf(allowed, 500, float(share) / 100 - 0.0005)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"weight_mismatches": 2}, "weights"),
        ({"map_mismatches": 2}, "maps"),
        ({"placements_rejected": 1}, "no_rejected_placements"),
        ({"failed": 1}, "no_failed_rearrangements"),
        ({"under_way_seconds": 5.1}, "no_stall"),
        ({"under_way_seconds": 9.0, "usual_seconds": 0.8}, "no_stall"),
    ],
)
def test_something_wrong_fails(changes: dict[str, Any], rule: str) -> None:
    run = Run().change("sync", **changes)

    assert run.bad() == [(rule, "sync", "failed")]
    assert verdict(run.rules()) == "failed"


@pytest.mark.parametrize(
    "changes", [{"under_way_seconds": 4.9}, {"under_way_seconds": 9.0, "usual_seconds": 1.0}]
)
def test_a_rearrangement_under_way_when_the_questions_end_is_no_stall(
    changes: dict[str, Any],
) -> None:
    assert Run().change("sync", rearrangements_started=7, **changes).bad() == []


def test_one_that_never_finished_at_all_is_a_stall_after_a_minute() -> None:
    waiting = {"rearrangements": 0, "modes": [], "usual_seconds": None}

    run = Run().change("sync", under_way_seconds=61.0, **waiting)
    assert run.only("no_stall", "sync").verdict == "failed"
    run = Run().change("sync", under_way_seconds=59.0, **waiting)
    assert run.only("rearrangements", "sync").verdict == "not tested"


@pytest.mark.parametrize(
    ("changes", "rule", "saw"),
    [
        ({"rearrangements": 4}, "rearrangements", "4 rearrangements finished"),
        ({"slots_changed": [4, 0, 4, 0]}, "slots_changed", "no slot changed in MoE layer 1, 3"),
        ({"slots_changed": [4, 4, 4]}, "slots_changed", "events of 3 MoE layers only"),
        ({"slots_changed": []}, "slots_changed", "events of 0 MoE layers only"),
        ({"weight_checks": 0}, "weights", "0 of 0 checked slots"),
        ({"map_checks": 0}, "maps", "0 of 0 checked experts"),
        ({"modes": ["async"]}, "mode", "rearrangements ran in mode async"),
        ({"modes": ["async", "sync"]}, "mode", "rearrangements ran in mode async, sync"),
        ({"rearrangements_started": 0}, "no_stall", "0 started"),
    ],
)
def test_equal_answers_without_evidence_are_not_tested(
    changes: dict[str, Any], rule: str, saw: str
) -> None:
    run = Run().change("sync", **changes)

    assert run.bad() == [(rule, "sync", "not tested")]
    assert verdict(run.rules()) == "not tested"
    assert saw in run.only(rule, "sync").saw


def test_no_evidence_is_demanded_where_the_gate_demands_none_except_one_rearrangement() -> None:
    run = Run(gate=gate(rearrangements=0, moe_layers=0))

    assert run.change("sync", slots_changed=[3]).bad() == []
    assert run.change("sync", rearrangements=0).bad()[0][0] == "rearrangements"


def test_fewer_questions_than_configured_are_not_tested() -> None:
    bad = Run(tasks=[gsm8k_task(questions=13)]).bad()

    assert bad == [("all_answered", name, "not tested") for name in ("off", "sync", "async")]


def test_all_questions_are_those_of_the_whole_test_set() -> None:
    bad = Run(tasks=[gsm8k_task(questions=None)]).bad()

    assert ("all_answered", "off", "not tested") in bad


def test_a_failure_weighs_more_than_missing_evidence_and_both_are_told() -> None:
    run = Run().change("sync", rearrangements=0, weight_mismatches=1)

    assert verdict(run.rules()) == "failed"
    told = [one.split(",")[0] for one in reasons(run.rules())]
    assert told[0] == "weights"
    assert "rearrangements" in told


@pytest.mark.parametrize("what", ["hash", "count", "prompt"])
def test_arms_that_were_asked_different_things_are_not_compared(what: str) -> None:
    run = Run()
    if what == "hash":
        run.change("async", tasks=arm("async", tasks=[task_run(task_hash="other")]).tasks)
    elif what == "count":
        run.answers["async"] = samples()[:-1]
    else:
        run.answers["async"] = [sample(number, prompt="q") for number in range(QUESTIONS)]

    assert verdict(run.rules()) == "invalid"
    assert run.only("same_questions", "async").verdict == "failed"
    assert "paired_accuracy" not in {one.rule for one in run.rules() if one.arm == "async"}


def test_a_difference_from_transformers_fails_and_too_few_prompts_are_not_tested() -> None:
    run = Run(oracle={"prompts": 4})
    assert run.bad() == [("oracle_answers", "off", "not tested")]

    run.found = OracleResult(prompts=4, identical=3, different=[2], seconds=1)
    assert run.bad() == [("oracle_answers", "off", "failed")]

    run.found = OracleResult(prompts=4, identical=4, different=[], seconds=1)
    assert run.bad() == []


def test_a_shown_loss_fails() -> None:
    run = paired(scored(right=600, lost=53, won=13, wrong=653))

    assert run.bad() == [("paired_accuracy", "sync", "failed")]
    saw = run.only("paired_accuracy", "sync").saw
    assert "613 of 1319 right, 653 in arm off: 53 lost, 13 won" in saw
    assert "losses over 4.1 points are excluded at 95 %" in saw


def test_flips_without_a_loss_pass() -> None:
    run = paired(scored(right=600, lost=33, won=33, wrong=653))

    assert run.bad() == []
    assert "a loss of 2.0 points with probability 0.8" in (
        run.only("paired_accuracy", "sync").detectable
    )


def test_a_gain_passes() -> None:
    assert paired(scored(right=600, lost=13, won=53, wrong=653)).bad() == []


def test_a_loss_that_is_neither_shown_nor_excluded_is_not_tested() -> None:
    run = paired(scored(right=100, lost=5, won=5, wrong=90))

    assert run.bad() == [("paired_accuracy", "sync", "not tested")]


def test_without_a_margin_no_loss_has_to_be_excluded() -> None:
    answers = scored(right=100, lost=5, won=5, wrong=90)
    without = gate(identical=False, noise_floor=False, margin_points=None)

    assert paired(answers, gate=without).bad() == []


def test_alpha_is_shared_out_over_arms_and_scored_tasks() -> None:
    tasks = [gsm8k_task(), gsm8k_task(name="gsm_tiny")]
    arms = [*small_config()["arms"], {"name": "control-one", "eplb": {}}]

    config = Config.model_validate(small_config(tasks=tasks, arms=arms))
    assert alpha_of_one_comparison(config) == pytest.approx(0.01 / 4)


def test_a_task_that_is_not_scored_tells_nothing_unless_answers_must_be_identical() -> None:
    answers = scored(right=200)
    task = gsm8k_task(questions=200, scored=False)
    assert paired(answers, tasks=[task]).bad() == [("paired_accuracy", "sync", "not tested")]

    identical = paired(answers, tasks=[task], gate=gate(identical=True))
    assert identical.bad() == []
    assert "paired_accuracy" not in {one.rule for one in identical.rules()}


def test_where_answers_may_differ_an_arm_has_to_repeat_off() -> None:
    run = paired(scored(right=200), gate=gate(identical=False, margin_points=3))

    assert run.bad() == [("noise_floor", None, "not tested")]


def noisy(
    sync: tuple[int, int], again: tuple[int, int], third: tuple[int, int] | None = None
) -> Run:
    """Of 400 questions, how many are lost and won in arm sync and in the repeats of off."""
    counts = {"off": (0, 0), "off-again": again, "sync": sync}
    arms = [{"name": "off"}, {"name": "off-again"}, small_config()["arms"][1]]
    if third:
        counts["off-third"] = third
        arms.append({"name": "off-third"})
    run = Run(
        tasks=[gsm8k_task(questions=400)],
        arms=arms,
        gate=gate(identical=False, margin_points=20),
    )
    for name, (lost, won) in counts.items():
        right = [*([False] * lost), *([True] * (200 - lost)), *([True] * won)]
        right += [False] * (400 - len(right))
        run.answers[name] = [
            sample(number, f"{flag}", correct=flag) for number, flag in enumerate(right)
        ]
        run.change(name, tasks=arm(name, tasks=[task_run(questions=400)]).tasks)
    return run


def test_the_noise_floor_is_what_flips_when_off_is_repeated() -> None:
    run = noisy(sync=(5, 5), again=(4, 6))

    assert run.bad() == []
    assert "10 of 400 texts differ, 10 answers flip (2.5 %)" in (
        run.only("noise_floor", "off-again").saw
    )
    assert "2.5 % flip in arm off-again" in run.only("noise_floor", "sync").saw
    assert "rearrangements" not in {one.rule for one in run.rules() if one.arm == "off-again"}


def test_answers_that_flip_far_more_often_than_the_noise_fail_without_any_loss() -> None:
    assert noisy(sync=(40, 40), again=(5, 5)).bad() == [("noise_floor", "sync", "failed")]


def test_a_noisy_floor_excuses_as_many_flips_elsewhere() -> None:
    assert noisy(sync=(40, 40), again=(40, 40)).bad() == []
    assert noisy(sync=(40, 40), again=(5, 5), third=(40, 40)).bad() == []
    assert noisy(sync=(40, 40), again=(40, 40), third=(5, 5)).bad() == []


@pytest.mark.parametrize("again", [(30, 2), (2, 30)])
def test_nothing_can_be_compared_with_an_off_that_does_not_repeat_itself(
    again: tuple[int, int],
) -> None:
    assert ("noise_floor", "off-again", "failed") in noisy(sync=(5, 5), again=again).bad()


def test_a_repeat_that_was_asked_something_else_is_no_floor() -> None:
    run = noisy(sync=(5, 5), again=(5, 5))
    run.answers["off-again"] = run.answers["off-again"][:-1]

    assert verdict(run.rules()) == "invalid"
    assert "noise_floor" not in {one.rule for one in run.rules() if one.arm == "sync"}


def test_an_arm_with_other_settings_of_the_plugin_repeats_nothing() -> None:
    arms = [{"name": "off"}, {"name": "off-again"}, {"name": "off-stock", "plugin": STOCK}]

    assert [one.name for one in repeats_of_off(Run(arms=arms).arms())] == ["off-again"]


def stock(**changes: Any) -> Run:
    arms = [{"name": "off"}, {"name": "stock", "plugin": STOCK, "eplb": {"use_async": True}}]
    run = Run(arms=arms)
    run.runs["stock"] = arm("off").model_copy(update={"name": "stock", **changes})
    return run


def test_of_an_arm_with_the_plugin_off_vllm_s_log_has_to_tell_of_rearrangements() -> None:
    assert stock(logged_rearrangements=5).bad() == []
    assert stock(logged_rearrangements=4).bad() == [("rearrangements", "stock", "not tested")]
    rules = {one.rule for one in stock(logged_rearrangements=5).rules() if one.arm == "stock"}
    assert rules == {
        "same_questions", "all_answered", "rearrangements", "identical_answers", "paired_accuracy"
    }  # fmt: skip


def test_an_arm_that_tells_the_plugin_nothing_owes_no_events() -> None:
    run = Run(arms=[{"name": "off"}, {"name": "sync", "eplb": {"use_async": False}}], plugin=None)
    run.runs["sync"] = arm("off").model_copy(update={"name": "sync", "logged_rearrangements": 5})

    assert run.bad() == []


def test_the_answers_of_an_arm_with_the_plugin_off_are_judged_like_all_others() -> None:
    run = stock(logged_rearrangements=5)
    run.answers["stock"] = samples(q1="other")

    assert run.bad() == [("identical_answers", "stock", "failed")]


def test_the_arm_of_a_control_is_left_out_of_the_run_s_rules() -> None:
    control = {"name": "control-broken", "eplb": {"use_async": False}}
    run = Run(arms=[*small_config()["arms"], control])
    run.answers["control-broken"] = samples(q1="other")

    assert run.bad() == []
    off, *_, broken = run.arms()
    results = arm_rules(run.config, off, broken, [], {})
    assert "failed" in {one.verdict for one in results if one.rule == "identical_answers"}


RECORDED = RecordedAccuracy(
    model="some-moe", dtype=["auto"], fewshot=2, questions=1319, accuracy=50, source="made up"
)


def test_an_accuracy_far_below_the_recorded_one_fails() -> None:
    required = gate(identical=False, noise_floor=False, recorded_accuracy=True)

    for right, failing in ((618, []), (617, ["off", "sync"])):
        run = paired(scored(right=right, wrong=1319 - right), gate=required)
        run.recorded = {"gsm8k": RECORDED}
        assert sorted(run.bad()) == [("recorded_accuracy", name, "failed") for name in failing]


def test_a_recorded_accuracy_that_is_not_there_is_not_tested() -> None:
    required = gate(identical=False, noise_floor=False, recorded_accuracy=True)
    run = paired(scored(right=1319), gate=required)

    assert sorted(run.bad()) == [
        ("recorded_accuracy", name, "not tested") for name in ("off", "sync")
    ]


def test_the_paired_correction_is_said() -> None:
    required = gate(identical=False, noise_floor=False, recorded_accuracy=True)
    run = paired(scored(right=640, lost=33, won=33, wrong=613), gate=required)
    run.recorded = {"gsm8k": RECORDED}

    result = run.only("recorded_accuracy", "sync")
    assert "at least 46.80 % (alpha 0.05, sigma 50, n 1319)" in result.limit
    assert "4.84 points less with probability 0.8 (beta 0.2)" in result.detectable
    assert "with 5.0 % of answers flipping" in result.detectable
    assert "3.72 points less are detected" in result.detectable
