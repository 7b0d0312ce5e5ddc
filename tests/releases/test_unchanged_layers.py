# SPDX-License-Identifier: Apache-2.0
"""A layer that does not change costs nothing, on two gloo ranks of releases of each kind."""

from pathlib import Path
from typing import Any

import pytest

from tests.releases.conftest import OLDEST_MIDDLE_NEWEST, RanksOf, releases
from tests.releases.ranks import Ranks, Reports, assert_nothing_wrong
from tests.releases.test_two_ranks import read_kind
from vllm_eplb_plugin.releases import Release

LAYERS = 6
CHANGES = [[2], [], [0, 3], [LAYERS - 1], [1, 2, LAYERS - 1], [0], list(range(LAYERS))]
"""For each of the rearrangements; each begins with what the one before it left."""

_KINDS = ("0.19.1", "0.20.0", "0.23.0", "0.24.0", "0.31.0", "0.32.0")
"""The first of each loop of vLLM's async worker, beside `OLDEST_MIDDLE_NEWEST`."""
_OF_EACH_KIND = releases(*OLDEST_MIDDLE_NEWEST, *_KINDS)


@pytest.fixture(scope="module", params=_OF_EACH_KIND, ids=lambda release: release.version)
def kind(request: pytest.FixtureRequest) -> Release:
    found: Release = request.param
    return found


@pytest.fixture
def ranks(kind: Release, ranks_of: RanksOf) -> Ranks:
    return ranks_of(kind)


def rearrange(ranks: Ranks, use_async: bool, **arguments: Any) -> Reports:
    changes = arguments.pop("changes", CHANGES)
    settings = arguments.pop("settings", {})
    events_dir = arguments.pop("events_dir", None)
    reports = ranks(
        use_async=use_async,
        scenario="unchanged_layers",
        arguments={"layers": [LAYERS], "changes": changes, **arguments},
        settings=settings,
        events_dir=events_dir,
    )
    assert_nothing_wrong(reports)
    for report in reports:
        assert len(report["costs"]) == report["rearrangements"] == len(changes)
    return reports


def test_async_mode_commits_layers_that_change_and_the_last_one(ranks: Ranks) -> None:
    reports = rearrange(ranks, use_async=True)
    for report in reports:
        for changes, cost in zip(CHANGES, report["costs"], strict=True):
            handed_over = sorted({*changes, LAYERS - 1})
            assert cost["committed"] == [[LAYERS, layer] for layer in handed_over]
            assert cost["steps"] == len(handed_over)
        assert report["outcomes"] == {"finished": 6, "skipped": 1}
        assert len(report["placements"]) == 6


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("transfer", ["peer", "vllm"])
def test_only_layers_that_change_are_transferred(
    ranks: Ranks, transfer: str, use_async: bool
) -> None:
    reports = rearrange(ranks, use_async, settings={"transfer": transfer})
    for report in reports:
        for changes, cost in zip(CHANGES, report["costs"], strict=True):
            sent, pulled = (len(changes), 0) if transfer == "vllm" else (0, len(changes))
            assert cost["pulled"] == pulled
            # Once to send and once to receive, in each layer that changes.
            assert cost["transfers"] == 2 * sent
            if ranks.examined["release"] >= "0.20":
                assert cost["executed"] == sent
            assert changes or not cost["buffer_written"]


def test_each_model_has_layers_of_its_own(ranks: Ranks) -> None:
    """The worker transfers one model after another."""
    changes = [[2], [3], [0], []]
    reports = rearrange(ranks, use_async=True, changes=changes, layers=[4, 6])
    for report in reports:
        assert [cost["committed"] for cost in report["costs"]] == [
            [[4, 2], [4, 3], [6, 2], [6, 5]],
            [[4, 3], [6, 3], [6, 5]],
            [[4, 0], [4, 3], [6, 0], [6, 5]],
            [[4, 3], [6, 5]],
        ]
        assert report["outcomes"] == {"finished": 6, "skipped": 2}


def test_a_drained_rearrangement_is_followed_by_another(ranks: Ranks) -> None:
    if ranks.examined["release"] < "0.24":
        pytest.skip("vLLM has no drain_async before 0.24")
    changes = [[1, 3], [0, 2, 5], [2], [3, 4], [0]]
    reports = rearrange(ranks, use_async=True, changes=changes, drain=2)
    for report in reports:
        committed = [[layer for _, layer in cost["committed"]] for cost in report["costs"]]
        assert committed == [[1, 3, 5], [0], [2, 5], [3, 4, 5], [0, 5]]
        assert report["outcomes"] == {"finished": 4, "drained": 1}


def test_weights_are_checked_in_layers_that_are_committed(ranks: Ranks, tmp_path: Path) -> None:
    rearrange(ranks, use_async=True, events_dir=str(tmp_path), changes=[[1], [0, 2]])
    checked = [event["layer"] for event in read_kind(tmp_path, "weights_checked")]
    assert checked == 2 * [1, 5, 0, 2, 5]
