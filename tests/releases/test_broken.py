# SPDX-License-Identifier: Apache-2.0
"""EPLB breaks on one of two ranks, once: it is named, serving goes on, weights stay right.

One release of each hand-shake between the async worker and the thread that runs the model.
"""

from pathlib import Path

import pytest

from tests.releases.broken_ranks import PROMISES, STRUCK_IN, Broken, assert_promise_is_kept
from tests.releases.conftest import OF_EACH_HANDSHAKE, RanksOf, releases
from tests.releases.ranks import Ranks
from vllm_eplb_plugin.observe.events import LayerCommitted, Placement
from vllm_eplb_plugin.releases import Release

OF_THE_WORKER = {"worker_raises", "worker_hangs", "worker_slow"}
CASES = [
    pytest.param(fault, use_async, id=f"{fault}-{'async' if use_async else 'sync'}")
    for fault in PROMISES
    for use_async in (False, True)
    if use_async or fault not in OF_THE_WORKER
]


@pytest.fixture(
    scope="module",
    params=releases(*OF_EACH_HANDSHAKE[1:]),
    ids=lambda release: release.version,
)
def handshake(request: pytest.FixtureRequest) -> Release:
    found: Release = request.param
    return found


@pytest.fixture
def ranks(handshake: Release, ranks_of: RanksOf) -> Ranks:
    return ranks_of(handshake)


@pytest.mark.parametrize(("fault", "use_async"), CASES)
def test_a_fault_of_one_rank_is_named_and_costs_what_is_promised(
    fault: str, use_async: bool, ranks: Ranks, tmp_path: Path
) -> None:
    assert_promise_is_kept(Broken(ranks, fault, use_async, tmp_path))


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_what_was_committed_before_a_transfer_failed_stays(
    use_async: bool, ranks: Ranks, tmp_path: Path
) -> None:
    seen = Broken(ranks, "transfer_fails", use_async, tmp_path)
    for told in seen.told:
        committed = [
            one.event.layer
            for one in told
            if isinstance(one.event, LayerCommitted) and one.event.rearrangement == STRUCK_IN
        ]
        assert committed == [0]
    placements = [one.event for one in seen.told[0] if isinstance(one.event, Placement)]
    maps = [one.physical_to_logical_map for one in placements if one.rearrangement < 3]
    changed = [old != new for old, new in zip(maps[-2], maps[-1], strict=True)]
    assert [one.rearrangement for one in placements][:3] == [0, 1, STRUCK_IN]
    assert changed == [True, False, False]
