# SPDX-License-Identifier: Apache-2.0
"""Which experts of a layer a rank pulls from which other rank, row by row; pure.

vLLM's ``rebalance_execute.move_to_buffer`` plans sends and receives, which both sides have to post.
Whoever can read the other ranks' weights needs no sender: it takes any replica, and may choose the
rank, so that no rank is read by all.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.integer]


class Pull(NamedTuple):
    """Rows that lie together in one rank's weights and will lie together in the buffer."""

    rank: int
    source: int
    """The first local slot of that rank."""
    row: int
    """The first row of the buffer."""
    rows: int


def plan_pulls(
    old: Slots, new: Slots, ep_rank: int, size: int, readable: Collection[int]
) -> tuple[Pull, ...]:
    """Plan a layer for one rank.

    Every expert that the rank does not hold arrives once, in the row of the first slot that gets
    it, as in vLLM; one that it holds is copied to each other slot that gets it. What no readable
    rank holds is left out.

    Args:
        old: ``[physical]``, the placement in force; -1: an empty slot.
        new: ``[physical]``, the placement to come.
        ep_rank: This rank.
        size: Slots of a rank.
        readable: Ranks whose weights this one can read, itself among them or not.
    """
    first = ep_rank * size
    mine, wanted = old[first : first + size], new[first : first + size]
    own = {expert: slot for slot, expert in reversed(list(enumerate(mine.tolist())))}
    holders = _holders(old, size, sorted({*readable} - {ep_rank}))
    turns = _turns(old, new, ep_rank, size)
    pulls: list[Pull] = []
    arrived: set[int] = set()
    for row in np.flatnonzero((mine != wanted) & (wanted >= 0)).tolist():
        expert = int(wanted[row])
        if expert in own:
            pulls.append(Pull(ep_rank, own[expert], row, 1))
        elif expert not in arrived and expert in holders:
            arrived.add(expert)
            last = pulls[-1] if pulls else None
            rank, slot = _source(holders[expert], row, last, turns[expert])
            pulls.append(Pull(rank, slot, row, 1))
    return tuple(joined(pulls))


def sent_by_message(old: Slots, new: Slots, hosts: Sequence[int]) -> Slots:
    """Leave of a layer's new placement what no rank of the receiver's host holds.

    Args:
        old: ``[physical]``, the placement in force; -1: an empty slot.
        new: ``[physical]``, the placement to come.
        hosts: Of each rank a number; those with the same number read each other's weights.

    Returns:
        ``[physical]``, alike on all ranks: ``new`` where an expert has to be sent, else ``old``.
    """
    if len(set(hosts)) == 1:
        return old
    host_of = np.repeat(np.asarray(hosts), len(old) // len(hosts))
    sent = (new != old) & (new >= 0)
    for host in set(hosts):
        there = host_of == host
        sent[there] &= ~np.isin(new[there], old[there])
    return np.where(sent, new, old)


def _holders(old: Slots, size: int, ranks: list[int]) -> dict[int, list[tuple[int, int]]]:
    """For each expert the ranks that hold it, each with its first slot of it."""
    found: dict[int, dict[int, int]] = {}
    for rank in ranks:
        for slot, expert in enumerate(old[rank * size : (rank + 1) * size].tolist()):
            if expert >= 0:
                found.setdefault(expert, {}).setdefault(rank, slot)
    return {expert: list(slots.items()) for expert, slots in found.items()}


def _turns(old: Slots, new: Slots, ep_rank: int, size: int) -> list[int]:
    """For each expert, how many ranks before this one receive it from another rank, too."""
    before, experts = slice(0, ep_rank * size), int(max(old.max(), new.max())) + 1
    ranks = np.repeat(np.arange(ep_rank), size)
    # Empty slots are counted in a column of their own, the last.
    has, wants = np.zeros((2, ep_rank, experts + 1), np.bool_)
    has[ranks, old[before]] = True
    wants[ranks, new[before]] = True
    turns: list[int] = (wants & ~has).sum(axis=0).tolist()
    return turns


def _source(
    holders: list[tuple[int, int]], row: int, last: Pull | None, turn: int
) -> tuple[int, int]:
    """Go on where the row before was taken from; else the ranks that want an expert take turns."""
    if last is not None and last.row + 1 == row and (last.rank, last.source + 1) in holders:
        return last.rank, last.source + 1
    return holders[turn % len(holders)]


def joined(rows: Iterable[Pull]) -> Iterator[Pull]:
    """Join rows that lie together on both sides."""
    last: Pull | None = None
    for one in rows:
        if last is not None and one == Pull(
            last.rank, last.source + last.rows, last.row + last.rows, one.rows
        ):
            last = last._replace(rows=last.rows + one.rows)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
