# SPDX-License-Identifier: Apache-2.0
"""All ranks come, or none goes on: settled through a store, before a collective is entered.

A collective that one rank enters alone ends by a time limit of half an hour, if ever, and names
nobody. A store needs nobody's help: whoever comes writes so, and whoever waits can give up.
"""

import contextlib
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

_HELD = "held"
_POLL_SECONDS = 0.005, 0.05
"""First and longest pause between looks into the store, which is never blocked for others."""
_PARTING_SECONDS = 5.0
"""How long at most those that have read wait for those that have not."""
_WHY = (
    "A rank that does not come has most likely stopped before, and its own log says why, or has no "
    "vllm-eplb-plugin: it is not installed there, is turned off by EPLB_PLUGIN or VLLM_PLUGINS, or "
    "is another version of it"
)

_meetings: Counter[tuple[str, str]] = Counter()
"""How often this process has come, by group and purpose: alike on all ranks of the group."""


@dataclass(frozen=True)
class Coming:
    """What one rank says when it comes."""

    host: str
    process: int
    message: Any
    """Whatever JSON can hold; anything else as `str` writes it."""


class RanksMissingError(RuntimeError):
    """Not all ranks came in time; the message names them, and none of those that came went on."""

    def __init__(self, message: str, came: Sequence[Coming] = ()) -> None:
        super().__init__(message)
        self.came = came
        """Those that did, as far as this rank could ask."""


@dataclass(frozen=True)
class Meeting:
    """A place in a store where the ranks of a group meet once."""

    store: Store
    place: str
    """Prefix of its keys, the same on all ranks and used for no other meeting."""
    rank: int
    """This rank, in the group."""
    global_ranks: Sequence[int]
    """Of each rank of the group, the one in the whole server."""
    purpose: str
    """For what, for those who read an error."""

    def hold(self, message: Any, limit_seconds: float) -> list[Coming]:
        """Say that this rank has come, and wait for the others.

        Whether the meeting was held is one value in the store, written once, by the last rank to
        come or the first that gives up: so either every rank returns or every rank raises, also one
        that comes after the others have given up.

        Returns:
            What each rank said, in their order.

        Raises:
            RanksMissingError: Some did not come in time, or the store's rank has ended.
        """
        coming = Coming(socket.gethostname(), os.getpid(), message)
        try:
            verdict = self._wait(json.dumps(vars(coming), default=str), limit_seconds)
            missing = [] if verdict == _HELD else self._missing()
            said = self._read([rank for rank in range(self.size) if rank not in missing])
        except RuntimeError as error:  # of torch's store, whose own errors are that
            raise RanksMissingError(
                f"{self.purpose}: {_name([self.rank], self.global_ranks)} could not wait for the "
                f"others, because the process that keeps the store has ended ({error}). {_WHY}"
            ) from error
        self._part()
        if verdict != _HELD:
            raise RanksMissingError(verdict, said)
        return said

    def _wait(self, message: str, limit_seconds: float) -> str:
        """The verdict, when all have come, or when time is over."""
        pause, longest = _POLL_SECONDS
        end = time.monotonic() + limit_seconds
        self.store.set(self._key(self.rank), message)
        if self.store.add(f"{self.place}/came", 1) == self.size:
            return self._decide(_HELD)
        while not self.store.check([self._decided]):
            if time.monotonic() >= end:
                return self._decide(self._gave_up(limit_seconds))
            time.sleep(pause)
            pause = min(2 * pause, longest)
        return self.store.get(self._decided).decode()

    def _decide(self, verdict: str) -> str:
        # An absent key is the empty string: only the first to decide writes.
        return bytes(self.store.compare_set(self._decided, "", verdict)).decode()

    def _gave_up(self, limit_seconds: float) -> str:
        return (
            f"{self.purpose}: {_name([self.rank], self.global_ranks)} on {socket.gethostname()} "
            f"has waited {limit_seconds:g} s for {_name(self._missing(), self.global_ranks)}. "
            f"{_WHY}"
        )

    def _missing(self) -> list[int]:
        return [rank for rank in range(self.size) if not self.store.check([self._key(rank)])]

    def _read(self, ranks: Sequence[int]) -> list[Coming]:
        keys = [self._key(rank) for rank in ranks]
        several = self.store.has_extended_api()  # type: ignore[attr-defined]
        values = self.store.multi_get(keys) if several else map(self.store.get, keys)
        return [Coming(**json.loads(value)) for value in values]

    def _part(self) -> None:
        """Wait until all that came have read: with an error, the process of the store may end."""
        end = time.monotonic() + _PARTING_SECONDS
        with contextlib.suppress(RuntimeError):  # it has ended, and nothing is left to read
            left = self.store.add(f"{self.place}/left", 1)
            while left < self.store.add(f"{self.place}/came", 0) and time.monotonic() < end:
                time.sleep(_POLL_SECONDS[0])
                left = self.store.add(f"{self.place}/left", 0)

    def _key(self, rank: int) -> str:
        return f"{self.place}/{rank}"

    @property
    def _decided(self) -> str:
        return f"{self.place}/decided"

    @property
    def size(self) -> int:
        """Ranks of the group."""
        return len(self.global_ranks)


def meet(coordinator: Any, purpose: str, message: Any, limit_seconds: float) -> list[Coming]:
    """Hold the next meeting of a vLLM group for some purpose, as `Meeting.hold`.

    Args:
        coordinator: A vLLM ``GroupCoordinator``; its ranks call equally often for one purpose.
        purpose: A few words, the same on all ranks; an error begins with them.
        message: What this rank has to say.
        limit_seconds: How long to wait for the others.
    """
    local = (coordinator.unique_name, purpose)
    number = _meetings[local]
    _meetings[local] += 1
    # Groups of one name, such as the EP groups of two stages, differ in their first rank.
    group = f"{coordinator.unique_name.partition(':')[0]}{coordinator.ranks[0]}"
    place = f"vllm_eplb_plugin/{group}/{purpose}/{number}"
    store, rank = store_of(coordinator), coordinator.rank_in_group
    return Meeting(store, place, rank, coordinator.ranks, purpose).hold(message, limit_seconds)


def store_of(coordinator: Any) -> Store:
    """Find the store that all ranks of a vLLM group reach."""
    # Elastic EP's groups, whose ranks share no default group, bring one each.
    own = getattr(coordinator, "tcp_store_group", None)
    store: Store = distributed_c10d._get_default_store() if own is None else own.store
    return store


def _name(ranks: Sequence[int], global_ranks: Sequence[int]) -> str:
    several = "s" if len(ranks) > 1 else ""
    name = f"EP rank{several} {spans(ranks)}"
    everywhere = [global_ranks[rank] for rank in ranks]
    return name if everywhere == list(ranks) else f"{name} (global {spans(everywhere)})"


def spans(ranks: Sequence[int]) -> str:
    """Name increasing numbers shortly: ``0-3, 5``."""
    ends: list[list[int]] = []
    for rank in ranks:
        if ends and rank == ends[-1][1] + 1:
            ends[-1][1] = rank
        else:
            ends.append([rank, rank])
    return ", ".join(f"{one}" if one == last else f"{one}-{last}" for one, last in ends)
