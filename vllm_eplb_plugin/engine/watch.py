# SPDX-License-Identifier: Apache-2.0
"""A rank's watch: who stands still, who is told, and when what is under way is given up.

All of it is on threads of its own, so that it also works while the thread that runs the model, and
the worker, wait for somebody else.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from vllm_eplb_plugin.engine.boards import Boards
from vllm_eplb_plugin.engine.heartbeat import Heartbeat
from vllm_eplb_plugin.engine.power import Power
from vllm_eplb_plugin.observe.front_end_process import (
    VARIABLE,
    end_server,
    has_ended,
    started_by,
)
from vllm_eplb_plugin.observe.pulse import Heard, Pulse
from vllm_eplb_plugin.observe.status import Stall
from vllm_eplb_plugin.observe.watchdog import describe, find_stalls, key_of
from vllm_eplb_plugin.observing_settings import WatchOptions

logger = logging.getLogger("vllm.eplb_plugin")

_NOT_STUCK = ("idle", "waiting for the model", "ended")
"""Phases of a worker that never are a reason to give up: an idle server makes no steps."""
_PATIENCE = 1.5
"""How much longer than the limit a worker may wait for others before it gives up by itself."""
_SECONDS_TO_BE_KNOWN = 10.0
"""After which a reason counts as known where the store does not answer."""


class Watch:
    """A watch looks every second, or more often where limits are short."""

    def __init__(
        self,
        options: WatchOptions,
        boards: Boards,
        power: Power,
        step: Callable[[], int],
        told: Callable[[Stall, bool], None],
        looked: Callable[[], None],
    ) -> None:
        """Begin on threads of its own.

        Args:
            options: The limits.
            boards: What this rank does.
            power: Whether EPLB is on.
            step: Gives engine steps since the model was loaded.
            told: Called with each stall, when it begins (True) and when it ends.
            looked: Called after each look, on the watch's thread.
        """
        self.stalled: list[Stall] = []
        """What stands still now."""
        self.stalls = 0
        """That began so far."""
        self.gives_up: str | None = None
        """Why this rank gives up the rearrangement that is under way."""
        self._options, self._boards, self._power = options, boards, power
        self._step, self._told, self._looked = step, told, looked
        self._seconds = min(1.0, options.warn_after_s / 4)
        self._awake_since = self._last = self._quiet_until = time.monotonic()
        self._heartbeat = Heartbeat(self._pulse, self._seconds)
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="eplb-watch", daemon=True).start()

    def end(self) -> None:
        """Let the threads end, without waiting for them."""
        self._ended.set()
        self._heartbeat.end()

    @property
    def num_ranks(self) -> int:
        """EP ranks of the stage; 0: not yet known."""
        return len(self._heartbeat.ranks)

    def is_known(self, reason: str, since: float) -> bool:
        """Say whether the other ranks can know a reason of this one to give up.

        Args:
            reason: Which is in `gives_up` or in the power.
            since: When it came up, by `time.monotonic`.
        """
        return self._heartbeat.have_read(reason) or time.monotonic() - since > _SECONDS_TO_BE_KNOWN

    @property
    def some_worker_is_stuck(self) -> bool:
        """Whether a rank gives up because of that; what they have told so far."""
        return any(one and one.pulse.has_stuck_worker for one in self._heartbeat.heard)

    def reasons(self) -> str:
        """Say which ranks give up, and why; what they have told so far."""
        heard = enumerate(self._heartbeat.heard)
        told = [(rank, one.pulse.gives_up) for rank, one in heard if one and one.pulse.gives_up]
        return "; ".join(f"EP rank {rank}: {reason}" for rank, reason in told) or (
            "another EP rank gives up, see its log"
        )

    def _run(self) -> None:
        self._started_by_front_end = started_by(os.environ.get(VARIABLE, ""))
        while not self._ended.wait(self._seconds):
            now = time.monotonic()
            if now - self._last > 3 * self._seconds + 1:
                # The process itself stood still: what it sees is old, and nobody else's fault.
                logger.info("This process stood still for %.0f s.", now - self._last)
                self._awake_since = now
            self._last = now
            self._look(now)
            self._looked()
            self._end_with_front_end()

    def _end_with_front_end(self) -> None:
        """End the server whose front end was killed: nobody can ask it any more."""
        told = os.environ.get(VARIABLE)
        if told is not None and has_ended(told):
            logger.error(
                "EPLB: the server's front end, process %s, has ended. Its engines end, too.",
                told.partition(" ")[0],
            )
            end_server(told, self._started_by_front_end)

    def _look(self, now: float) -> None:
        heard = [one and _since(one, self._awake_since) for one in self._heartbeat.heard]
        found = self._find(heard, now, self._options.warn_after_s)
        if any(stall.thread == "process" for stall in found):
            self._quiet_until = now + 2 * self._seconds
        elif now < self._quiet_until:
            found = []  # a rank is back, and what others told is of before
        self._tell(found, heard, now)
        self._give_up_if_stuck(heard, now)

    def _find(self, heard: list[Heard | None], now: float, limit: float) -> list[Stall]:
        waits_since = self._heartbeat.waits_since
        waited = 0.0 if waits_since is None else now - max(waits_since, self._awake_since)
        if waited <= limit or not heard:
            return find_stalls(heard, now, limit)
        # Nobody is heard any more, because the process of global rank 0 keeps the store.
        ranks = self._heartbeat.ranks
        rank = ranks.index(0) if 0 in ranks else -1
        last = heard[rank] if rank >= 0 else None
        phase = last.pulse.model_thread.phase if last else "idle"
        return [Stall(rank, "process", phase, None, waited)]

    def _tell(self, found: list[Stall], heard: list[Heard | None], now: float) -> None:
        before = {key_of(stall): stall for stall in self.stalled}
        after = {key_of(stall): stall for stall in found}
        self.stalled = found
        speaks = self._speaks(found, heard)
        for key in after.keys() - before.keys():
            self.stalls += 1
            self._told(after[key], True)
            if speaks:
                logger.warning("EPLB stands still: %s.", describe(after[key]))
        for key in before.keys() - after.keys():
            self._told(before[key], False)
            if speaks:
                logger.info("EPLB goes on, which stood still: %s.", describe(before[key]))

    def _speaks(self, found: list[Stall], heard: list[Heard | None]) -> bool:
        """One rank writes the log's line for all: the first that can."""
        silent = {stall.rank for stall in found if stall.thread == "process"}
        ranks = [rank for rank in range(len(heard)) if rank not in silent]
        return not ranks or self._heartbeat.rank == ranks[0]

    def _give_up_if_stuck(self, heard: list[Heard | None], now: float) -> None:
        limit = self._options.give_up_after_s
        worker = self._boards.worker_status(self._awake_since)
        if worker is None or worker.phase in _NOT_STUCK:
            return
        # A policy has a limit of its own, after which it is voted on; who waits waits for that.
        patience = 1.0 if worker.phase in ("transfer", "commit") else _PATIENCE
        if worker.seconds <= patience * limit:
            return
        found = self._find(heard, now, limit)
        rank = self._heartbeat.rank
        mine = Stall(rank, "worker", worker.phase, worker.layer, worker.seconds)
        told = "; ".join(map(describe, found or [mine]))
        self._power.ask_to_turn_off(f"stood still: {told}", has_stuck_worker=True)

    def _pulse(self, number: int) -> Pulse:
        return Pulse(
            number,
            self._step(),
            self._boards.model_status(self._awake_since),
            self._boards.worker_status(self._awake_since),
            self._power.state,
            self._power.asks_to_turn_off or self.gives_up,
            self._power.has_stuck_worker,
        )


def _since(heard: Heard, moment: float) -> Heard:
    return replace(heard, at=max(heard.at, moment))
