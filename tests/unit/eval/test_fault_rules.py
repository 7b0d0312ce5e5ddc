# SPDX-License-Identifier: Apache-2.0
"""What a server promises when a fault strikes, and what shows that it did not keep it."""

import re
from typing import Any, get_args

import pytest

from eval.config.faults import PROMISES, FaultName
from eval.judging.fault_rules import fault_rules
from eval.judging.soak_rules import soak_rules
from eval.report.fault_rows import FaultRow
from eval.results.memory import MemorySample, MemoryUse
from eval.results.trial import FaultSeen, Happening, SameAnswers, Trial
from tests.builders.arms import arm
from vllm_eplb_plugin.fault_settings import BROKEN

_LINE = "EP rank 1: the transfer of layer 3 failed"


def seen(fault: FaultName = "transfer_fails", **changes: Any) -> FaultSeen:
    promise = PROMISES[fault]
    outcomes = {7: promise.outcome, 8: promise.later}
    values = {
        "struck": 100.0,
        "noticed": 100.5,
        "said": _LINE,
        "rearrangement": None if promise.from_outside else 7,
        "outcomes": {number: one for number, one in outcomes.items() if one is not None},
    }
    return FaultSeen(fault=fault, rank=1, limit=2.0, **{**values, **changes})


def verdicts(fault: FaultName = "transfer_fails", **changes: Any) -> dict[str, str]:
    rules = fault_rules("async", fault, seen(fault, **changes))
    return {rule.rule: rule.verdict for rule in rules if rule.verdict != "passed"}


def test_the_plugin_s_faults_are_promised_something_and_so_are_those_from_outside() -> None:
    assert [*PROMISES] == [*get_args(FaultName)]
    inside = [name for name, promise in PROMISES.items() if not promise.from_outside]
    assert inside == [*BROKEN]


@pytest.mark.parametrize("fault", [name for name in PROMISES if not PROMISES[name].ends])
def test_a_promise_that_is_kept_passes(fault: FaultName) -> None:
    assert verdicts(fault) == {}


@pytest.mark.parametrize(
    ("fault", "changes", "found"),
    [
        ("transfer_fails", {"noticed": 102.5}, {"noticed": "failed"}),
        ("transfer_fails", {"noticed": None, "said": None}, {"noticed": "failed"}),
        ("transfer_fails", {"outcomes": {8: "finished"}}, {"outcome": "failed"}),
        ("transfer_fails", {"outcomes": {7: "stalled", 8: "finished"}}, {"outcome": "failed"}),
        ("transfer_fails", {"outcomes": {7: "failed"}}, {"later_rearrangements": "failed"}),
        (
            "transfer_fails",
            {"outcomes": {7: "failed", 8: "failed", 9: "finished"}},
            {"later_rearrangements": "failed"},
        ),
        (
            "worker_hangs",
            {"outcomes": {7: "stalled", 8: "finished"}},
            {"later_rearrangements": "failed"},
        ),
        (
            "rank_stopped",
            {"struck": None, "noticed": None},
            {"noticed": "not tested", "later_rearrangements": "not tested"},
        ),
        (
            "transfer_fails",
            {"struck": None, "noticed": None, "rearrangement": None, "outcomes": {}},
            {
                "noticed": "not tested",
                "outcome": "not tested",
                "later_rearrangements": "not tested",
            },
        ),
    ],
)
def test_each_part_of_a_promise_is_judged(
    fault: FaultName, changes: dict[str, Any], found: dict[str, str]
) -> None:
    assert verdicts(fault, **changes) == found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ended_after": 9.0}, {}),
        ({"ended_after": None, "left": ["process 7"]}, {"ended": "failed"}),
        ({"ended_after": 9.0, "left": ["/dev/shm/psm_1"]}, {"ended": "failed"}),
        ({"ended_after": 100.0}, {"ended": "failed"}),
    ],
)
def test_a_server_that_has_to_end_leaves_nothing(
    changes: dict[str, Any], found: dict[str, str]
) -> None:
    assert verdicts("rank_killed", **changes) == found


@pytest.mark.parametrize(
    ("fault", "line", "matches"),
    [
        (
            "worker_hangs",
            "stands still: EP rank 1, the async worker, phase transfer of layer",
            True,
        ),
        (
            "worker_hangs",
            "stands still: EP rank 0, the async worker, phase transfer of layer",
            False,
        ),
        ("worker_hangs", "stands still: EP rank 1, the async worker, phase agreeing", False),
        ("worker_raises", "off until: EP rank 1: the async worker has ended in phase x", True),
        ("rank_stopped", "stands still: EP rank 1 has told nothing for 3 s", True),
        ("rank_stopped", "stands still: EP rank 0 has told nothing for 3 s", False),
        ("transfer_fails", "failed: EP rank 1: the transfer of layer 3 failed, X", True),
    ],
)
def test_only_a_line_that_names_rank_and_phase_counts(
    fault: FaultName, line: str, matches: bool
) -> None:
    pattern = PROMISES[fault].said.replace("{rank}", "1")
    assert (re.search(pattern, line) is not None) == matches


def test_a_row_tells_how_the_server_ended() -> None:
    row = FaultRow(fault="x", mode="sync", verdict="passed", reasons=[], vllm="0", ended_after=3.0)
    assert "the server ended after 3.0 s" in row.cells()


SAMPLES = [
    MemorySample(seconds=2 * one, host=9000, gpu=None, threads=170, descriptors=500, shared=80)
    for one in range(20)
]
HAPPENED = Trial(
    happenings=[Happening(what="rank stopped", seconds=3.0, took=2.0)],
    same_answers=SameAnswers(asked=9),
    aborted=4,
)


def soaked(**changes: Any) -> dict[str, str]:
    memory = MemoryUse.of(SAMPLES, False)
    values = {"memory": memory, "trial": HAPPENED, **changes}
    run = arm("async").model_copy(update=values)
    return {rule.rule: rule.verdict for rule in soak_rules(run) if rule.verdict != "passed"}


def grown(**growth: float) -> dict[str, Any]:
    return {"memory": MemoryUse.of(SAMPLES, False).model_copy(update=growth)}


def trial(**changes: Any) -> dict[str, Any]:
    return {"trial": HAPPENED.model_copy(update=changes)}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {}),
        (grown(thread_growth=5.0), {"threads": "failed"}),
        (grown(descriptor_growth=33.0), {"descriptors": "failed"}),
        (grown(shared_growth_mib=17.0), {"shared_memory": "failed"}),
        (trial(same_answers=SameAnswers(asked=9, different=1)), {"same_answers": "failed"}),
        (trial(same_answers=SameAnswers()), {"same_answers": "not tested"}),
        (trial(happenings=[]), {"happenings": "not tested"}),
        (trial(aborted=0), {"happenings": "not tested"}),
    ],
)
def test_each_rule_of_a_soak_alone_decides(changes: dict[str, Any], found: dict[str, str]) -> None:
    assert soaked(**changes) == found
