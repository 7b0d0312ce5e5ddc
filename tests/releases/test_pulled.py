# SPDX-License-Identifier: Apache-2.0
"""Weights that ranks pull from each other's memory, on real ranks of real states."""

from typing import Any

import pytest

from tests.releases.ranks import Ranks, assert_nothing_wrong, refusal

DRAWN: dict[str, Any] = {"scenario": "pulled", "redundant": 4}
MIXED: dict[str, Any] = {**DRAWN, "ranks": 4, "arguments": {"hosts": ["a", "a", "b", "b"]}}


@pytest.mark.parametrize("use_async", [False, True])
def test_two_hosts_pull_what_they_hold_and_send_the_rest(use_async: bool, ranks: Ranks) -> None:
    reports = ranks(use_async=use_async, rearrangements=3, **MIXED)
    for report in reports:
        assert (report["wrong_weights"], report["wrong_maps"]) == (0, 0)
        assert len(report["placements"]) == 3 and report["pulled"] == [True] * 3
    ways = [report["ways"] for report in reports]
    assert all(way["pulled"] > 0 for way in ways)
    assert any(way["planned by vLLM"] > 0 for way in ways)


@pytest.mark.parametrize("use_async", [False, True])
def test_ranks_of_one_host_send_nothing(use_async: bool, some_ranks: Ranks) -> None:
    job = {**DRAWN, "use_async": use_async, "rearrangements": 4}
    reports = some_ranks(**job)
    assert_nothing_wrong(reports)
    assert all(r["ways"]["pulled"] > 0 and "planned by vLLM" not in r["ways"] for r in reports)
    sent = some_ranks(settings={"transfer": "vllm"}, **job)
    assert_nothing_wrong(sent)
    assert all(set(report["ways"]) == {"planned by vLLM"} for report in sent)
    assert reports[0]["placements"] == sent[0]["placements"]


@pytest.mark.parametrize("use_async", [False, True])
def test_tensors_that_were_replaced_are_opened_anew(use_async: bool, some_ranks: Ranks) -> None:
    job = {**DRAWN, "use_async": use_async, "rearrangements": 4, "arguments": {"replaces": 3}}
    reports = some_ranks(**job)
    assert_nothing_wrong(reports)
    assert all(report["pulled"] == [True] * 3 for report in reports)


REASONS = {
    "opens nothing": "EP rank 1 (cpu) cannot read EP rank 0 (cpu): its memory cannot be opened",
    "reads something else": "cannot read EP rank 0 (cpu): it reads other bytes than are there",
    "has no memory of its own": "memory of the expert weights cannot be shared: Attempted to",
    "has little shared memory": "one: /dev/shm has 0 MiB free, and the expert weights of this",
}


@pytest.mark.parametrize("fault", REASONS)
def test_where_one_rank_cannot_read_all_send_or_refuse(fault: str, some_ranks: Ranks) -> None:
    job = {**DRAWN, "arguments": {"fault": fault, "fault_of": 1}}
    before = len(some_ranks.log.read_text())
    reports = some_ranks(**job, rearrangements=2)
    assert_nothing_wrong(reports)
    assert all(report["pulled"] == [False] * 3 for report in reports)
    reason = REASONS[fault]
    assert reason in some_ranks.log.read_text()[before:]
    error, log = refusal(some_ranks, settings={"transfer": "peer"}, **job)
    assert "PeersRefusedError: transfer='peer'" in error and reason in error
    assert log.count("PeersRefusedError: transfer='peer'") == 2


@pytest.mark.parametrize(("by_peers", "by_vllm"), [(0.001, 0.002), (0.002, 0.001)])
def test_nixl_stays_unless_peers_are_faster(
    by_peers: float, by_vllm: float, some_ranks: Ranks
) -> None:
    if some_ranks.examined["release"] < "0.23":
        pytest.skip("vLLM has no communicator that this could stand for before 0.23")
    before = len(some_ranks.log.read_text())
    arguments = {"nixl": [by_peers, by_vllm]}
    reports = some_ranks(scenario="pulled", rearrangements=2, arguments=arguments)
    assert_nothing_wrong(reports)
    assert all(report["pulled"] == [by_peers < by_vllm] * 3 for report in reports)
    stayed = "weights: NixlEplbCommunicator (it took 1.0 ms a layer, from peers' memory 2.0)"
    assert (stayed in some_ranks.log.read_text()[before:]) == (by_vllm < by_peers)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dies", "EP rank 1"),
        ("hangs", "not all came in 2 s"),
    ],
)
def test_a_rank_that_does_not_pull_is_named_by_the_others(
    fault: str, said: str, some_ranks: Ranks
) -> None:
    job = {**DRAWN, "arguments": {"fault": fault, "fault_of": 1}}
    settings = {"rank_timeout_s": 2.0}
    error, log = refusal(some_ranks, settings=settings, **job)
    assert "TransferError: ranks pull expert weights" in error
    assert said in error, error
    assert "EPLB rearrangement 1 of model0 failed" in log


@pytest.mark.parametrize("use_async", [False, True])
def test_pulls_that_raise_on_one_rank_cost_their_rearrangements_only(
    use_async: bool, some_ranks: Ranks
) -> None:
    before = len(some_ranks.log.read_text())
    job = {**DRAWN, "use_async": use_async, "steps": 60}
    reports = some_ranks(**job, arguments={"fault": "raises", "fault_of": 1})
    assert_nothing_wrong(reports)
    log = some_ranks.log.read_text()[before:]
    assert all(report["placements"] == [] for report in reports)
    assert log.count("EPLB rearrangement 2 of model0 failed: ") == 2
    named = "EP rank 1: the transfer of layer 0" if use_async else "layer 0 failed, on EP rank 1"
    assert named in log
    assert "RuntimeError: no copy today. What was committed is whole" in log


@pytest.mark.parametrize("use_async", [False, True])
def test_ranks_that_elastic_ep_keeps_and_adds_pull_alike(
    use_async: bool, some_ranks: Ranks
) -> None:
    job: dict[str, Any] = {"scenario": "regrown", "elastic": True, "redundant": 8}
    reports = some_ranks(use_async=use_async, rearrangements=3, **job)
    assert_nothing_wrong(reports)
    assert all(report["pulled"] == [True] * 3 for report in reports)
