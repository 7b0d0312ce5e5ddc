# SPDX-License-Identifier: Apache-2.0
"""EPLB breaks on one of two ranks, once: it is named, serving goes on, weights stay right.

One release of each hand-shake between the async worker and the thread that runs the model.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eval.activity.events import Told, read_events
from tests.releases.conftest import ranks_of
from tests.releases.ranks import Ranks, Reports, assert_nothing_wrong
from vllm_eplb_plugin.observe.events import (
    LayerCommitted,
    Placement,
    RearrangementEnded,
    RearrangementRejected,
    StallBegan,
    TurnedOff,
)
from vllm_eplb_plugin.releases import RELEASES, Release

WARN, GIVE_UP = 1.0, 3.0
LATE = 2.0
"""What is noticed is so within its limit and this many seconds."""
STRUCK_IN = 2
_HANDSHAKES = ("0.19.1", "0.22.1", "0.26.0", "0.33.0")


class Promise(NamedTuple):
    """What a fault costs."""

    outcome: str
    """Of the rearrangement in which it strikes."""
    stands_in: str | None = None
    """The phase that the watch names; None: an error tells."""
    is_off: bool = False
    """EPLB is until the server starts again; else the next rearrangement is as promised."""
    next_one: str = "finished"
    seconds: float = 3600.0


PROMISES = {
    "worker_raises": Promise("failed", is_off=True),
    "worker_hangs": Promise("stalled", "transfer", is_off=True),
    "worker_slow": Promise("finished", "transfer", seconds=1.4),
    "policy_raises": Promise("rejected"),
    # It is not asked again before it has answered.
    "policy_hangs": Promise("rejected", "planning", next_one="rejected"),
    "transfer_fails": Promise("failed"),
}
OF_THE_WORKER = {"worker_raises", "worker_hangs", "worker_slow"}
CASES = [
    pytest.param(fault, use_async, id=f"{fault}-{'async' if use_async else 'sync'}")
    for fault in PROMISES
    for use_async in (False, True)
    if use_async or fault not in OF_THE_WORKER
]


@pytest.fixture(
    scope="module",
    params=[release for release in RELEASES if release.version in _HANDSHAKES],
    ids=lambda release: release.version,
)
def handshake(request: pytest.FixtureRequest) -> Release:
    found: Release = request.param
    return found


@pytest.fixture(scope="module")
def ranks(handshake: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    yield from ranks_of(handshake, tmp_path_factory)


class Broken:
    """What both ranks saw and told of one run."""

    def __init__(
        self, ranks: Ranks, fault: str, use_async: bool, folder: Path, **more: Any
    ) -> None:
        before = len(ranks.log.read_text())
        watch = {"warn_after_s": WARN, "give_up_after_s": GIVE_UP}
        when = {"rank": 1, "rearrangement": STRUCK_IN, "seconds": PROMISES[fault].seconds}
        self.reports: Reports = ranks(
            scenario="broken",
            fault=fault,
            use_async=use_async,
            rearrangements=STRUCK_IN + 1,
            events_dir=str(folder),
            settings={"watch": watch, "fault_when": when, **more},
            arguments={"patience": 40.0},
        )
        self.log = ranks.log.read_text()[before:]
        told = [[*read_events(folder / f"rank{rank}.jsonl")] for rank in range(2)]
        self.told: list[list[Told]] = told

    @property
    def struck(self) -> float:
        (at,) = re.findall(r"EPLB breaks as ordered: \w+ on EP rank 1, .* at ([\d.]+)\.", self.log)
        return float(at)

    def outcomes(self, rank: int) -> dict[int, str]:
        """By the number of the rearrangement."""
        ended = [one.event for one in self.told[rank] if isinstance(one.event, RearrangementEnded)]
        return {event.rearrangement: event.kind.removeprefix("rearrangement_") for event in ended}

    def noticed(self, promise: Promise) -> dict[int, float]:
        """When each rank told of what stands still, or of the error, naming rank and phase."""
        found: dict[int, float] = {}
        for rank, told in enumerate(self.told):
            times = [one.time for one in told if names_it(one, promise)]
            if times:
                found[rank] = min(times)
        return found


def names_it(told: Told, promise: Promise) -> bool:
    event = told.event
    if promise.stands_in is not None:
        if not isinstance(event, StallBegan) or event.stalled_rank != 1:
            return False
        has_layer = event.layer is not None
        return event.phase == promise.stands_in and has_layer == (event.phase == "transfer")
    if isinstance(event, RearrangementRejected):
        return told.source.rank == 1 and "OrderedFaultError" in event.reason
    reason = getattr(event, "reason", "")
    on_rank_1 = "EP rank 1" in reason or told.source.rank == 1
    return on_rank_1 and re.search(r"of layer \d|has ended in phase", reason) is not None


@pytest.mark.parametrize(("fault", "use_async"), CASES)
def test_a_fault_of_one_rank_is_named_and_costs_what_is_promised(
    fault: str, use_async: bool, ranks: Ranks, tmp_path: Path
) -> None:
    promise = PROMISES[fault]
    seen = Broken(ranks, fault, use_async, tmp_path)
    assert_promise_is_kept(seen, promise)
    limit = WARN if promise.stands_in else 0.0
    times = seen.noticed(promise)
    assert times, seen.log
    assert all(time - seen.struck <= limit + LATE for time in times.values()), seen.log


def assert_promise_is_kept(seen: Broken, promise: Promise) -> None:
    assert_nothing_wrong(seen.reports)
    for rank, report in enumerate(seen.reports):
        assert report["in_time"], seen.log
        assert not report["moving"]
        assert report["is_off"] == promise.is_off
        outcomes = seen.outcomes(rank)
        assert outcomes[STRUCK_IN - 1] == "finished"
        assert outcomes[STRUCK_IN] == promise.outcome, seen.log
        if promise.is_off:
            assert max(outcomes) == STRUCK_IN
            assert any(report["collectives"]) and not any(report["collectives_after"])
        else:
            assert outcomes[STRUCK_IN + 1] == promise.next_one
    off = Counter(isinstance(one.event, TurnedOff) for told in seen.told for one in told)[True]
    assert off == (2 if promise.is_off else 0)


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
