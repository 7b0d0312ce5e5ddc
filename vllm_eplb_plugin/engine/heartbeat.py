# SPDX-License-Identifier: Apache-2.0
"""Signs of life between ranks: over a store connection of their own, on a thread of their own.

A rank that is stopped, or stands in a collective, cannot be named by another collective, which it
would block as well. A store needs nobody's help but that of the rank that keeps it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch._C._distributed_c10d import Store
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.rendezvous import store_of
from vllm_eplb_plugin.observe.pulse import Heard, Pulse

_READ_WITHIN = 1.25
"""Pulses: others read once in each of theirs, which may begin a little late."""


@dataclass(frozen=True)
class _Connection:
    """To the store of one EP group."""

    group: Any
    """A vLLM ``GroupCoordinator``."""
    store: Store
    keys: Sequence[str]
    """By EP rank."""

    @classmethod
    def to(cls, group: Any) -> "_Connection":
        # Groups of one name, such as the EP groups of two stages, differ in their first rank.
        place = f"vllm_eplb_plugin/pulse/{group.unique_name.partition(':')[0]}{group.ranks[0]}"
        keys = [f"{place}/{rank}" for rank in range(group.world_size)]
        # A connection of its own: one that waits for an answer keeps all others of its user.
        own: Store = store_of(group).clone()  # type: ignore[attr-defined]
        return cls(group, own, keys)


class Heartbeat:
    """A heartbeat tells the EP ranks of a stage what this rank does, and hears what they do.

    It ends with the process. Where the store's rank has ended, nothing is heard any more.
    """

    def __init__(self, pulse: Callable[[int], Pulse], seconds: float) -> None:
        """Begin on a thread of its own.

        Args:
            pulse: Makes the pulse of a number.
            seconds: From one to the next.
        """
        self.heard: list[Heard | None] = []
        """By EP rank, its last pulse; a new list each time."""
        self.ranks: Sequence[int] = ()
        """By EP rank, the one in the whole server."""
        self.rank = 0
        """EP rank of this process."""
        self.waits_since: float | None = None
        """Since when the store has not answered, by `time.monotonic`; None: it has."""
        self._pulse, self._seconds = pulse, seconds
        self._connection: _Connection | None = None
        self._told: tuple[str | None, float] = (None, 0.0)
        """The reason to give up that was sent last, and since when it is, by `time.monotonic`."""
        self._due, self._ends = threading.Event(), False
        threading.Thread(target=self._run, name="eplb-heartbeat", daemon=True).start()

    def have_read(self, reason: str) -> bool:
        """Say whether the others have read why this rank gives up, unless they are late.

        A reason that has not been sent is at once; any thread may ask.
        """
        told, since = self._told
        if told != reason:
            self._due.set()
            return False
        return time.monotonic() - since > _READ_WITHIN * self._seconds

    def end(self) -> None:
        """Let the thread end, without waiting for it."""
        self._ends = True
        self._due.set()

    def _run(self) -> None:
        number = 0
        while True:
            self._due.clear()
            if self._ends:
                return
            number += 1
            if self.waits_since is None:
                self.waits_since = time.monotonic()
            # Of torch, whose store's errors are that; without a store; without a group any more.
            with contextlib.suppress(RuntimeError, ValueError, AssertionError):
                self._exchange(self._pulse(number))
                self.waits_since = None
            self._due.wait(self._seconds)

    def _exchange(self, mine: Pulse) -> None:
        group = get_ep_group()
        if self._connection is None or self._connection.group is not group:
            self.ranks, self.rank = group.ranks, group.rank_in_group
            self._connection, self.heard = None, [None] * group.world_size
            self._connection = _Connection.to(group)
        store, keys = self._connection.store, self._connection.keys
        store.set(keys[group.rank_in_group], mine.to_json())
        heard, now = list(self.heard), time.monotonic()
        known = [rank for rank, key in enumerate(keys) if heard[rank] or store.check([key])]
        answers = store.multi_get([keys[rank] for rank in known])
        for rank, pulse in zip(known, map(Pulse.from_json, answers), strict=True):
            before = heard[rank]
            if before is None or before.pulse.number != pulse.number:
                heard[rank] = Heard(pulse, now)
        self.heard = heard
        if mine.gives_up != self._told[0]:
            self._told = (mine.gives_up, now)
