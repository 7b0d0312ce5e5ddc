# SPDX-License-Identifier: Apache-2.0
"""Pipeline parallelism: every stage balances its own experts, and needs not have any."""

import pytest

from tests.releases.conftest import RanksOf, releases
from tests.releases.ranks import RankFailure, Ranks, assert_nothing_wrong
from vllm_eplb_plugin.releases import Release


@pytest.fixture
def v2_ranks(some_release: Release, ranks_of: RanksOf) -> Ranks:
    """Ranks of the oldest release with EPLB in model runner V2, one in the middle, the newest."""
    if some_release.version.startswith("0.18."):
        [some_release] = releases("0.19.0")
    return ranks_of(some_release)


SERVING = {"scenario": "stage_steps", "rearrangements": 3, "steps": 60}


@pytest.mark.parametrize(
    "pools", [False, True], ids=["before the last stage", "a model that pools"]
)
def test_ranks_that_will_not_sample_step_once_for_every_forward_pass(
    pools: bool, some_ranks: Ranks
) -> None:
    reports = some_ranks(**SERVING, arguments={"pools": pools})
    assert_nothing_wrong(reports)
    assert len(reports[0]["placements"]) == 3
    # The first rearrangement comes after a quarter of the interval.
    assert [report["steps"] for report in reports] == [3 + 12 + 12] * 2


@pytest.mark.parametrize(
    "pools", [False, True], ids=["before the last stage", "a model that pools"]
)
def test_an_idle_rank_steps_as_often_as_one_that_serves(pools: bool, some_ranks: Ranks) -> None:
    reports = some_ranks(
        **SERVING,
        arguments={"pools": pools},
        on_rank_1={"arguments": {"pools": pools, "idle": True}},
    )
    assert_nothing_wrong(reports)
    assert len(reports[0]["placements"]) == 3


def test_a_stage_balances_its_own_layers_where_the_model_counts_those_of_all(
    some_ranks: Ranks,
) -> None:
    reports = some_ranks(**SERVING, arguments={"more_layers": 2})
    assert_nothing_wrong(reports)
    assert [len(layers) for [layers] in reports[0]["placements"]] == [3] * 3


def test_a_stage_without_experts_serves_if_another_has_some(some_ranks: Ranks) -> None:
    assert_serves_with_one_stage(some_ranks, "v1")


def test_runner_v2_serves_a_stage_without_experts_if_another_has_some(v2_ranks: Ranks) -> None:
    assert_serves_with_one_stage(v2_ranks, "v2")


def assert_serves_with_one_stage(ranks: Ranks, runner: str) -> None:
    for layers in ([0, 3], [3, 0]):
        reports = ranks(scenario="two_stages", runner=runner, arguments={"layers": layers})
        has, has_not = sorted(reports, key=lambda report: not report["has_experts"])
        assert not has_not["has_experts"]
        assert has["rearrangements"] == 3
        assert has["wrong_weights"] == has["wrong_maps"] == 0


NOBODY = {"scenario": "two_stages", "arguments": {"layers": [0, 0]}}


def test_a_model_without_experts_on_any_stage_is_refused(some_ranks: Ranks) -> None:
    with pytest.raises(RankFailure, match="does not implement vLLM's MixtureOfExperts"):
        some_ranks(**NOBODY)


def test_runner_v2_refuses_a_model_without_experts_on_any_stage(v2_ranks: Ranks) -> None:
    with pytest.raises(RankFailure, match="does not implement vLLM's MixtureOfExperts"):
        v2_ranks(**NOBODY, runner="v2")
