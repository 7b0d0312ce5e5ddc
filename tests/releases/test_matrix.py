# SPDX-License-Identifier: Apache-2.0
"""Every supported vLLM release: its real `EplbState` on two gloo ranks, with and without the
overrides, from its own sources."""

from pathlib import Path
from typing import Any, get_args

import pytest
from packaging.version import Version

from eval.config.loading import load_config
from eval.serving.command import server_command
from tests.releases.broken_ranks import Broken, assert_promise_is_kept
from tests.releases.ranks import ROOT, RankFailure, Ranks, Reports, assert_nothing_wrong, refusal
from vllm_eplb_plugin.fault_settings import Fault
from vllm_eplb_plugin.releases import Release


def without_replica_order(l2p: Any) -> Any:
    """Sort what lies deepest: the slots of each logical expert."""
    if isinstance(l2p[0], list):
        return [without_replica_order(part) for part in l2p]
    return sorted(l2p)


def assert_placed_as_by_stock(reports: Reports, stock: Reports, release: Release) -> None:
    assert_nothing_wrong(reports)
    (report, _), (expected, _) = reports, stock
    assert len(report["placements"]) >= 6
    assert report["placements"] == expected["placements"]
    if release.version.startswith("0.18."):
        # Its policy numbers the replicas; from 0.19 on they are in the order of their slots.
        report, expected = (
            {"l2p": without_replica_order(seen["l2p"])} for seen in (report, expected)
        )
    assert report["l2p"] == expected["l2p"]


@pytest.mark.every_release
def test_every_override_fits(release: Release, ranks: Ranks) -> None:
    assert ranks.examined["release"] == release.version
    assert ranks.examined["mismatches"] == []
    overrides = ranks.examined["overrides"]
    assert overrides["state"] >= 6
    assert all(overrides[fault] > 0 for fault in get_args(Fault))
    assert overrides["transfer_delay_ms"] == 1
    on_one_gpu = not release.version.startswith(("0.18.", "0.19."))
    # That of the coordinator fits every release.
    assert overrides["loopback_cuda"] == 1 + (2 if on_one_gpu else 0)
    exact, exact_on_cpu = (Version(release.version) >= Version(one) for one in ("0.21", "0.32"))
    assert overrides["exact"] == overrides["exact_on_gpu"] == exact
    assert overrides["exact_on_cpu"] == exact_on_cpu


@pytest.mark.every_release
@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    "job", [{"models": 2}, {"redundant": 0}], ids=["target and drafter", "none redundant"]
)
def test_experts_are_placed_as_by_stock(
    job: dict[str, Any], use_async: bool, release: Release, ranks: Ranks
) -> None:
    reports = ranks(use_async=use_async, **job)
    stock = ranks(use_async=use_async, plugin=False, **job)
    assert_placed_as_by_stock(reports, stock, release)
    assert (reports[0]["width"], stock[0]["width"]) == (job.get("redundant", 4) + 1, 1024)
    assert reports[0]["logical_maps_handed_over"] == 0
    three_maps = use_async and release.version.startswith("0.18.")
    assert (stock[0]["logical_maps_handed_over"] > 0) == three_maps


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_drafter_of_other_sizes_and_dtypes_is_placed_as_by_stock(
    use_async: bool, release: Release, ranks: Ranks
) -> None:
    specs = {"drafter": [[("float64", [5])]], "layers": [[("int32", [6]), ("uint8", [4])]] * 3}
    job: dict[str, Any] = {"scenario": "layers", "arguments": specs, "use_async": use_async}
    reports, stock = ranks(**job), ranks(plugin=False, **job)
    assert_placed_as_by_stock(reports, stock, release)


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_layers_that_differ_are_placed_as_layers_that_are_alike(
    use_async: bool, ranks: Ranks
) -> None:
    usual, other = [("float32", [6]), ("float16", [4])], [("bfloat16", [9])]
    alike = ranks(use_async=use_async)
    for layers in ([usual, other, usual], [other, usual, usual]):
        job: dict[str, Any] = {"scenario": "layers", "arguments": {"layers": layers}}
        reports = ranks(use_async=use_async, **job)
        assert_nothing_wrong(reports)
        assert reports[0]["placements"] == alike[0]["placements"]


def test_elastic_ep_gives_experts_to_a_rank_and_takes_them_back(
    release: Release, ranks: Ranks
) -> None:
    job = {"elastic": True, "redundant": 8}
    reports = ranks(**job)
    assert_placed_as_by_stock(reports, ranks(plugin=False, **job), release)
    assert [len(placement[0][0]) for placement in reports[0]["placements"]] == [16] * 6 + [8]
    assert reports[0]["initial"] == [[[*range(8), *[-1] * 8]] * 3]
    knows_most_ranks = Version(release.version) >= Version("0.30")
    assert reports[0]["width"] == (16 if knows_most_ranks else 1024)
    assert all(-1 not in layer for layer in reports[0]["placements"][0][0])


@pytest.mark.every_release
@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_model_runner_v2_s_controller_gets_the_same(
    use_async: bool, release: Release, ranks: Ranks
) -> None:
    if release.version.startswith("0.18."):
        pytest.skip("model runner V2 of vLLM 0.18 knows no EPLB")
    reports = ranks(runner="v2", use_async=use_async)
    assert_nothing_wrong(reports)
    assert reports[0]["placements"] == ranks(use_async=use_async)[0]["placements"]
    with pytest.raises(RankFailure, match="does not implement vLLM's MixtureOfExperts"):
        ranks(runner="v2", use_async=use_async, dense=True)


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_policy_of_three_tensors_works_like_one_of_one(use_async: bool, ranks: Ranks) -> None:
    reports = ranks(policy="three_tensors", use_async=use_async)
    assert_nothing_wrong(reports)
    assert reports[0]["placements"] == ranks(use_async=use_async)[0]["placements"]


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_bad_placement_is_refused_and_stepping_goes_on(use_async: bool, ranks: Ranks) -> None:
    reports = ranks(policy="drops_an_expert", use_async=use_async, steps=60)
    assert_nothing_wrong(reports)
    assert all(r["placements"] == [] and r["rejections"] >= 3 for r in reports)


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("fault", ["weights_not_moved", "expert_row_swapped", "stale_sources"])
def test_a_fault_of_the_weights_is_noticed(fault: str, use_async: bool, ranks: Ranks) -> None:
    reports = ranks(fault=fault, use_async=use_async, rearrangements=3)
    assert sum(report["wrong_weights"] for report in reports) >= 2
    assert all(report["wrong_maps"] == 0 for report in reports)


def test_a_slow_transfer_changes_nothing(ranks: Ranks) -> None:
    reports = ranks(transfer_delay_ms=5, use_async=True, rearrangements=2)
    assert_nothing_wrong(reports)
    assert len(reports[0]["placements"]) == 2


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_fault_of_the_maps_is_noticed(use_async: bool, ranks: Ranks) -> None:
    fault = "replica_count_off_by_one"
    reports = ranks(fault=fault, use_async=use_async, rearrangements=2)
    assert all(r["wrong_maps"] >= 3 and r["wrong_weights"] == 0 for r in reports)


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_fault_of_the_plan_changes_nothing(use_async: bool, ranks: Ranks) -> None:
    invalid = ranks(fault="invalid_placement", use_async=use_async, steps=40)
    never = ranks(fault="no_rearrangement", use_async=use_async, steps=40)
    stale = ranks(fault="stale_plan", use_async=use_async, steps=60)
    assert_nothing_wrong(stale)
    assert all(report["rejections"] >= 1 for report in stale)
    for reports in (invalid, never):
        assert_nothing_wrong(reports)
        assert all(report["placements"] == [] for report in reports)
    assert all(report["rejections"] >= 3 for report in invalid)
    assert all(report["rearrangements"] == 0 for report in never)


def test_the_evaluation_on_gpus_gives_the_release_options_that_it_has(ranks: Ranks) -> None:
    """The commands of vLLM pull request 36267, and the same without DeepEP."""
    commands, expected = [], []
    for backend in ("deepep_low_latency", "allgather_reducescatter"):
        overrides = [f"serve.options.all2all-backend={backend}"]
        config = load_config(ROOT / "eval/config/presets/deepseek-v2-lite.yaml", overrides)
        for arm in config.arms:
            if arm.eplb is None:
                continue
            command = server_command(config, arm, "vllm", 8000, Path("events"))
            # What stands before is the front end's, whose parser needs what only a server needs.
            options = command[command.index("--port") + 2 :]
            commands.append([*options, "--model", config.model])
            settings = {**(config.plugin_settings(arm) or {}), "events_dir": "events"}
            expected.append(
                {
                    "all2all_backend": backend,
                    "data_parallel_size": 2,
                    "enable_expert_parallel": True,
                    "enable_eplb": True,
                    "window_size": 20,
                    "step_interval": 20,
                    "num_redundant_experts": 0,
                    "use_async": arm.name.endswith("async"),
                    "additional_config": {"eplb_plugin": settings},
                }
            )
    assert len(commands) == 8
    assert ranks(commands=commands)[0]["read"] == expected


def test_under_another_name_it_is_tried_and_served(release: Release, ranks: Ranks) -> None:
    for use_async in (False, True):
        reports = ranks(version=f"{release.version}.post1", use_async=use_async)
        assert_nothing_wrong(reports)
        assert len(reports[0]["placements"]) >= 6
    name = f"vLLM {release.version}.post1 (untested, overridden as {release.version}, tried on"
    assert ranks.log.read_text().count(name) == 2


def test_under_another_name_and_with_another_body_it_is_refused(
    release: Release, ranks: Ranks
) -> None:
    job = {"version": f"{release.version}.post1", "changed_body": "moves_nothing_on_rank_1"}
    for use_async in (False, True):
        message, _ = refusal(ranks, use_async=use_async, **job)
        assert f"is not what {release.version} does" in message
        assert "slots [6, 7, 8, 9, 10, 11] do not hold" in message


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("fault", ["transfer_fails", "policy_raises"])
def test_a_fault_of_one_rank_costs_one_rearrangement(
    fault: str, use_async: bool, ranks: Ranks, tmp_path: Path
) -> None:
    assert_promise_is_kept(Broken(ranks, fault, use_async, tmp_path))
