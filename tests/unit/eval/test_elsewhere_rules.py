# SPDX-License-Identifier: Apache-2.0
"""What a rule about EPLB comes to where its server runs elsewhere."""

from typing import Any

import pytest

from eval.activity.scrapes import Scrape, read_scrape
from eval.judging.arms import ArmToJudge
from eval.judging.elsewhere_rules import notes_of_elsewhere
from eval.judging.verdict import judge_run
from eval.results.elsewhere import ServedElsewhere, Witness, witness_of
from eval.results.schema import RuleResult
from tests.builders.run_to_judge import Run, gate

URL = "http://10.0.0.1:8000"
INCREMENTAL = {"planning": {"policy": "incremental"}}


def scrapes_of(*moved: int, of_eplb: bool = True) -> list[Scrape]:
    text = "vllm:generation_tokens_total 1"
    told = [f"{text}\nvllm:eplb_moved_experts_total {one}" if of_eplb else text for one in moved]
    return [read_scrape(one, time) for time, one in enumerate(told)]


def judged(
    witness: Witness,
    name: str = "sync",
    changes: dict[str, Any] | None = None,
    scrapes: list[Scrape] | None = None,
    **config: Any,
) -> tuple[list[ArmToJudge], list[RuleResult]]:
    """A run in which all is well, one arm of which was asked elsewhere."""
    run = Run(**config)
    elsewhere = ServedElsewhere(
        url=URL, served_model="m", with_key=False, release=None, witness=witness, lacking="no why"
    )
    run.change(name, elsewhere=elsewhere, **(changes or {}))
    given = scrapes_of(10, 34) if scrapes is None else scrapes
    arms = [
        one._replace(scrapes=given, log=None) if one.name == name else one for one in run.arms()
    ]
    return arms, judge_run(run.config, arms, None, {})


def rule(rules: list[RuleResult], name: str, arm: str = "sync") -> RuleResult:
    [found] = [one for one in rules if (one.rule, one.arm) == (name, arm)]
    return found


def test_events_show_all_and_rules_say_that_they_are_the_evidence() -> None:
    arms, rules = judged("events")

    assert {one.verdict for one in rules} == {"passed"}
    of_eplb = ("ranks_agree", "rearrangements", "slots_changed", "no_stall", "weights", "maps")
    assert all(rule(rules, one).saw.endswith(", by its events") for one in of_eplb)
    assert list(notes_of_elsewhere(arms, rules)) == [
        f"arm sync runs elsewhere, at {URL}: its EPLB is judged by its events"
    ]


def test_events_of_another_server_are_suspected_where_metrics_tell_of_more() -> None:
    _, rules = judged("events", changes={"rearrangements": 0})

    saw = rule(rules, "rearrangements").saw
    assert saw.endswith("its /metrics tells of 0: is its folder of events that of this server?")


def test_metrics_show_no_ranks_layers_or_checks() -> None:
    _, rules = judged("metrics")

    untested = {one.rule for one in rules if one.verdict != "passed"}
    assert untested == {"ranks_agree", "slots_changed", "weights", "maps"}
    assert {one.arm for one in rules if one.verdict != "passed"} == {"sync"}
    assert rule(rules, "slots_changed").saw == (
        "metrics do not tell in which layers slots changed, only events do, and no why; by its "
        "/metrics 24 experts went to another rank"
    )
    assert rule(rules, "no_failed_rearrangements").detectable.endswith(
        "on EP rank 0, whose figures metrics are"
    )


@pytest.mark.parametrize("witness", ["events", "metrics", "nothing"])
def test_what_is_shown_to_be_wrong_fails_whatever_tells_it(witness: Witness) -> None:
    _, rules = judged(witness, changes={"failed": 1, "placements_rejected": 1})

    failed = {one.rule for one in rules if one.verdict == "failed"}
    assert failed == {"no_failed_rearrangements", "no_rejected_placements"}


def test_too_few_rearrangements_prove_nothing_by_metrics_either() -> None:
    _, rules = judged("metrics", changes={"rearrangements": 4})

    assert rule(rules, "rearrangements").verdict == "not tested"


def test_where_nothing_tells_nothing_of_eplb_is_tested() -> None:
    arms, rules = judged("nothing", scrapes=[])

    assert rule(rules, "identical_answers").verdict == "passed"
    assert rule(rules, "rearrangements").saw == "nothing tells of its EPLB: no why"
    of_eplb = {one.rule for one in rules if one.arm == "sync" and one.verdict == "not tested"}
    [note] = notes_of_elsewhere(arms, rules)
    assert set(note.partition("Not tested for that: ")[2].split(", ")) == of_eplb
    assert {"rearrangements", "mode", "no_stall", "weights"} < of_eplb


@pytest.mark.parametrize(
    ("moe_layers", "moved", "verdict"),
    [(1, 1, "passed"), (0, 1, "passed"), (1, 0, "not tested"), (2, 1, "not tested")],
)
def test_experts_are_received_by_metrics_where_one_layer_is_enough(
    moe_layers: int, moved: int, verdict: str
) -> None:
    config = {"gate": gate(moe_layers=moe_layers), "plugin": INCREMENTAL}
    given = scrapes_of(5, 5 + moved)
    _, rules = judged("metrics", changes={"models": []}, scrapes=given, **config)

    assert rule(rules, "experts_received").verdict == verdict
    assert rule(rules, "policy").verdict == "not tested"


def test_of_vllm_s_own_eplb_nothing_tells_without_its_log() -> None:
    _, rules = judged("nothing", changes={"logged_rearrangements": 9}, plugin={"enabled": False})

    assert rule(rules, "rearrangements").verdict == "not tested"
    assert "its log is not here" in rule(rules, "rearrangements").saw


def test_off_is_off_where_metrics_of_vllm_tell_nothing_of_eplb() -> None:
    silent = scrapes_of(0, 0, of_eplb=False)

    for witness, scrapes, verdict in (
        ("metrics", silent, "passed"),
        ("nothing", [], "not tested"),
        ("metrics", [silent[0], *scrapes_of(3)], "failed"),
    ):
        _, rules = judged(witness, "off", scrapes=scrapes)  # type: ignore[arg-type]
        assert rule(rules, "no_rearrangements", "off").verdict == verdict


def test_the_best_witness_that_is_there_is_taken() -> None:
    silent = scrapes_of(0, 0, of_eplb=False)

    assert witness_of(True, True, scrapes_of(1, 2)) == "events"
    assert witness_of(True, False, scrapes_of(1, 2)) == "metrics"
    assert witness_of(True, False, silent) == "nothing"
    assert witness_of(False, False, silent) == "metrics"
    assert witness_of(False, True, silent[:1]) == "events"
    assert witness_of(False, False, [read_scrape("up 1", 0)] * 2) == "nothing"
