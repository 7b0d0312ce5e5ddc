# SPDX-License-Identifier: Apache-2.0
"""All ranks come, or none goes on: settled through a store, before a collective is entered.

A collective that one rank enters alone ends by a time limit of half an hour, if ever, and names
nobody. A store needs nobody's help: whoever comes writes so, and whoever waits can give up.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch._C._distributed_c10d import Store
from torch.distributed import distributed_c10d

_HELD = b"held"
_POLL_SECONDS = 0.005, 0.05
"""First and longest pause between looks into the store, which is never blocked for others."""

_meetings: Counter[tuple[str, str]] = Counter()
"""How often this process has come, by group and purpose: alike on all ranks of the group."""


class RanksMissingError(RuntimeError):
    """Not all ranks came in time; the message names them, and none of those that came went on."""


@dataclass(frozen=True)
class Coming:
    """What one rank says when it comes."""

    host: str
    process: int
    message: Any
    """Whatever JSON can hold."""


@dataclass(frozen=True)
class Meeting:
    """A place in a store where the ranks of a group meet once."""

    store: Store
    place: str
    """Prefix of its keys, the same on all ranks and used for no other meeting."""
    rank: int
    """This rank, in the group."""
    size: int
    """Ranks of the group."""

    def hold(self, message: Any, limit_seconds: float) -> list[Coming]:
        """Say that this rank has come, and wait for the others.

        Whether the meeting was held is one value in the store, written once, by the first rank that
        sees all or gives up: so either every rank returns or every rank raises, also one that comes
        after the others have given up.

        Returns:
            What each rank said, in their order.

        Raises:
            RanksMissingError: Some did not come in time.
        """
        coming = Coming(socket.gethostname(), os.getpid(), message)
        self.store.set(self._key(self.rank), json.dumps(vars(coming)))
        missing = self._wait(limit_seconds)
        verdict = self._decide(missing, limit_seconds)
        if verdict != _HELD:
            raise RanksMissingError(verdict.decode())
        return [Coming(**json.loads(self.store.get(self._key(rank)))) for rank in range(self.size)]

    def _wait(self, limit_seconds: float) -> list[int]:
        """Ranks that have not come when all have, or when time is over."""
        pause, longest = _POLL_SECONDS
        end = time.monotonic() + limit_seconds
        missing = list(range(self.size))
        while True:
            missing = [rank for rank in missing if not self.store.check([self._key(rank)])]
            if not missing or self.store.check([self._decided]) or time.monotonic() >= end:
                return missing
            time.sleep(pause)
            pause = min(2 * pause, longest)

    def _decide(self, missing: Sequence[int], limit_seconds: float) -> bytes:
        gave_up = f"rank {self.rank} has waited {limit_seconds:g} s for {_name(missing)}"
        mine = gave_up.encode() if missing else _HELD
        # An absent key is the empty string: only the first to decide writes.
        return bytes(self.store.compare_set(self._decided, "", mine.decode()))

    def _key(self, rank: int) -> str:
        return f"{self.place}/{rank}"

    @property
    def _decided(self) -> str:
        return f"{self.place}/decided"


def meet(coordinator: Any, purpose: str, message: Any, limit_seconds: float) -> list[Coming]:
    """Hold the next meeting of a vLLM group for some purpose, as `Meeting.hold`.

    Args:
        coordinator: A vLLM ``GroupCoordinator``; its ranks call equally often for one purpose.
        purpose: One of few words, the same on all ranks.
        message: What this rank has to say.
        limit_seconds: How long to wait for the others.
    """
    local = (coordinator.unique_name, purpose)
    number = _meetings[local]
    _meetings[local] += 1
    # Groups of one name, such as the EP groups of two stages, differ in their first rank.
    place = f"vllm_eplb_plugin/{coordinator.ranks[0]}/{purpose}/{number}"
    store, rank, size = store_of(coordinator), coordinator.rank_in_group, coordinator.world_size
    return Meeting(store, place, rank, size).hold(message, limit_seconds)


def store_of(coordinator: Any) -> Store:
    """Find the store that all ranks of a vLLM group reach."""
    # Elastic EP's groups, whose ranks share no default group, bring one each.
    own = getattr(coordinator, "tcp_store_group", None)
    store: Store = distributed_c10d._get_default_store() if own is None else own.store
    return store


def _name(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
