# SPDX-License-Identifier: Apache-2.0
"""Faults that a stress run orders, and what is promised of each (docs/faults.md)."""

from dataclasses import dataclass
from typing import Literal

from vllm_eplb_plugin.fault_settings import Broken

FromOutside = Literal["rank_stopped", "rank_killed", "front_end_killed", "events_disk_full"]
"""The harness does it; the others are ordered by the plugin's setting ``fault``."""

FaultName = Literal[Broken, FromOutside]


@dataclass(frozen=True)
class Promise:
    """What becomes of a server in which a fault strikes, and who says so."""

    said: str
    """What its log says: a pattern, in which ``{rank}`` is the EP rank."""
    stands_still: bool = False
    """It is noticed by the watch, after `watch.warn_after_s`; else by an error, at once."""
    outcome: str | None = None
    """Of the rearrangement in which it strikes; none: there need be none."""
    later: str | None = "finished"
    """Of those that follow; none: EPLB is off, and there are none."""
    ends: bool = False
    """The server does, with all its processes."""
    needs_worker: bool = False
    """There has to be an async worker."""
    seconds: float = 3600.0
    """How long it lasts, unless something else is asked for."""
    from_outside: bool = False
    """The harness does it."""


_WORKER = "EP rank {rank}[:,].*async worker"

PROMISES: dict[FaultName, Promise] = {
    "worker_raises": Promise(
        f"{_WORKER}.* has ended", outcome="failed", later=None, needs_worker=True
    ),
    "worker_hangs": Promise(
        f"stands still: {_WORKER}, phase transfer of layer",
        stands_still=True,
        outcome="stalled",
        later=None,
        needs_worker=True,
    ),
    "worker_slow": Promise(
        f"stands still: {_WORKER}, phase transfer of layer",
        stands_still=True,
        outcome="finished",
        needs_worker=True,
        seconds=5.0,
    ),
    "policy_raises": Promise(
        r"EP{rank} .*placement rejected .*OrderedFaultError", outcome="rejected"
    ),
    "policy_hangs": Promise(
        "stands still: EP rank {rank}, .*, phase planning",
        stands_still=True,
        outcome="rejected",
        later="rejected",
    ),
    "transfer_fails": Promise(
        "failed: (EP rank {rank}: )?the transfer of layer .* failed", outcome="failed"
    ),
    "rank_stopped": Promise(
        "stands still: EP rank {rank} has told nothing",
        stands_still=True,
        seconds=30.0,
        from_outside=True,
    ),
    "rank_killed": Promise(
        "EngineCore_DP{rank} .*died unexpectedly|EP rank {rank} has told nothing",
        stands_still=True,
        ends=True,
        from_outside=True,
    ),
    "front_end_killed": Promise(
        r"front end, process \d+, has ended", stands_still=True, ends=True, from_outside=True
    ),
    "events_disk_full": Promise("EPLB events are dropped", seconds=10.0, from_outside=True),
}
