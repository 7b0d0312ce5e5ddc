# SPDX-License-Identifier: Apache-2.0
"""Who stands still, by what all ranks told last: the rank that others wait for, and not these.

In a collective everybody waits for the last to come. So of all threads that have been in one phase
for too long, those count that do work of their own; ranks that tell nothing any more come first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vllm_eplb_plugin.observe.phases import WAITS_FOR_OTHERS
from vllm_eplb_plugin.observe.pulse import Heard
from vllm_eplb_plugin.observe.status import Stall, ThreadStatus

_OWN_WORK = ("planning", "transfer", "commit")


@dataclass(frozen=True)
class _Standing:
    """A thread, and for how long it has been where it is, by the clock of who looks."""

    rank: int
    thread: Literal["model", "worker"]
    status: ThreadStatus
    seconds: float

    def stall(self) -> Stall:
        return Stall(self.rank, self.thread, self.status.phase, self.status.layer, self.seconds)


def find_stalls(heard: Sequence[Heard | None], now: float, limit_seconds: float) -> list[Stall]:
    """Find what has stood still for so long.

    Args:
        heard: By EP rank, what it told last; None: nothing yet.
        now: By the clock of `Heard.at`.
        limit_seconds: How long a thread may be in one phase, and a rank may tell nothing.

    Returns:
        In the order of ranks. A worker that has ended stands still at once.
    """
    told = {rank: one for rank, one in enumerate(heard) if one is not None}
    silent = [_silence(rank, one, now) for rank, one in told.items()]
    # A rank that may be what others wait for is waited for before one of these is named.
    half = limit_seconds / 2
    quiet = any(stall.seconds > half for stall in silent)
    silent = [stall for stall in silent if stall.seconds > limit_seconds]
    gone = {stall.rank for stall in silent}
    living = {rank: one for rank, one in told.items() if rank not in gone}
    workers = [one for one in _workers(living, now) if _is_late(one, limit_seconds)]
    at_work = [one for one in workers if one.status.phase not in WAITS_FOR_OTHERS]
    if quiet:
        return silent + [one.stall() for one in at_work if one.status.phase == "ended"]
    models = _model_threads_that_block(list(_models(living, now)), limit_seconds)
    found = models + at_work
    busy = any(one.status.phase in _OWN_WORK for one in _workers(living, now))
    if not found and not busy:  # a collective that never ends: of all that wait in it
        found = [one for one in workers if one.status.phase != "waiting for the model"]
    return sorted((one.stall() for one in found), key=lambda stall: (stall.rank, stall.thread))


def _silence(rank: int, one: Heard, now: float) -> Stall:
    status = one.pulse.model_thread
    if one.pulse.worker is not None and status.phase in ("idle", "forward"):
        worker = one.pulse.worker
        status = worker if worker.phase in _OWN_WORK else status
    return Stall(rank, "process", status.phase, status.layer, now - one.at)


def _models(heard: dict[int, Heard], now: float) -> Iterator[_Standing]:
    for rank, one in heard.items():
        status = one.pulse.model_thread
        yield _Standing(rank, "model", status, status.seconds + now - one.at)


def _workers(heard: dict[int, Heard], now: float) -> Iterator[_Standing]:
    for rank, one in heard.items():
        status = one.pulse.worker
        if status is not None and one.pulse.state != "off":
            yield _Standing(rank, "worker", status, status.seconds + now - one.at)


def _is_late(one: _Standing, limit_seconds: float) -> bool:
    if one.status.phase == "ended":
        return True
    return one.status.phase != "idle" and one.seconds > limit_seconds


def _model_threads_that_block(all_of_them: list[_Standing], limit: float) -> list[_Standing]:
    """Those that the others wait for; none: no thread that runs the model stands in a step."""
    late = [one for one in all_of_them if one.seconds > limit]
    in_a_step = [one for one in late if one.status.phase != "idle"]
    if not in_a_step:
        return []
    at_work = [one for one in in_a_step if one.status.phase in _OWN_WORK]
    if not at_work and any(one.status.phase in _OWN_WORK for one in all_of_them):
        return []  # who waits for that thread is not to blame, and it is not late yet
    # Engines make their steps together: one that makes none keeps the others in theirs.
    absent = [one for one in late if one.status.phase == "idle"]
    return at_work or absent or in_a_step


def key_of(stall: Stall) -> tuple[int, str, str, int | None]:
    """Return what tells stalls apart: the same one lasts longer with every look."""
    phase = "" if stall.thread == "process" else stall.phase
    return stall.rank, stall.thread, phase, None if not phase else stall.layer


def describe(stall: Stall) -> str:
    """Name rank, thread, phase and layer, and for how long."""
    who = f"EP rank {stall.rank}" if stall.rank >= 0 else "global rank 0, which keeps the store,"
    layer = "" if stall.layer is None else f" of layer {stall.layer}"
    seconds = f"for {stall.seconds:.0f} s"
    if stall.thread == "process":
        return f"{who} has told nothing {seconds} (its last phase: {stall.phase}{layer})"
    thread = "the thread that runs the model" if stall.thread == "model" else "the async worker"
    if stall.phase == "ended":
        return f"{who}, {thread}, has ended{layer and ' amid the transfer'}{layer}"
    return f"{who}, {thread}, phase {stall.phase}{layer}, {seconds}"
