# SPDX-License-Identifier: Apache-2.0
"""A fault on one of two ranks, what is promised of it, and what both ranks told."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from eval.activity.events import Told, read_events
from tests.releases.ranks import Ranks, Reports, assert_nothing_wrong
from vllm_eplb_plugin.observe.events import (
    RearrangementEnded,
    RearrangementRejected,
    StallBegan,
    TurnedOff,
)

WARN, GIVE_UP = 1.0, 3.0
LATE = 2.0
"""What is noticed is so within its limit and this many seconds."""
STRUCK_IN = 2


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


class Broken:
    """What both ranks saw and told of one run."""

    def __init__(
        self, ranks: Ranks, fault: str, use_async: bool, folder: Path, **more: Any
    ) -> None:
        self.promise = PROMISES[fault]
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

    @property
    def noticed(self) -> float | None:
        """When a rank told first what stands still, or of the error, naming rank and phase."""
        told = (one for of_rank in self.told for one in of_rank)
        return min((one.time for one in told if names_it(one, self.promise)), default=None)


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


def assert_promise_is_kept(seen: Broken) -> None:
    """The fault was named in time, cost its rearrangement what is promised, and harmed nothing."""
    promise = seen.promise
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
    told_off = [one for told in seen.told for one in told if isinstance(one.event, TurnedOff)]
    assert len(told_off) == (2 if promise.is_off else 0)
    limit = (WARN if promise.stands_in else 0.0) + LATE
    assert seen.noticed is not None, seen.log
    assert seen.noticed - seen.struck <= limit, seen.log
