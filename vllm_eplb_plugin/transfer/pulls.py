# SPDX-License-Identifier: Apache-2.0
"""Which experts of a layer a rank pulls from which other rank, row by row; pure.

vLLM's ``rebalance_execute.move_to_buffer`` plans sends and receives, which both sides have to post.
Whoever can read the other ranks' weights needs no sender: it takes any replica, and may choose the
rank, so that no rank is read by all.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LayerPulls:
    """What one rank does for one layer."""

    pulls: tuple[Pull, ...]
    """From other ranks, and from itself where an expert goes to another of its slots."""
    by_message: tuple[tuple[int, int], ...]
    """Experts that no rank which can be read holds, with the row that receives each."""


def plan_pulls(
    old: Slots, new: Slots, ep_rank: int, size: int, readable: Collection[int]
) -> LayerPulls:
    """Plan a layer for one rank.

    Every expert that the rank does not hold arrives once, in the row of the first slot that gets
    it, as in vLLM; one that it holds is copied to each other slot that gets it.

    Args:
        old: ``[physical]``, the placement in force; -1: an empty slot.
        new: ``[physical]``, the placement to come.
        ep_rank: This rank.
        size: Slots of a rank.
        readable: Ranks whose weights this one can read, itself among them or not.
    """
    first = ep_rank * size
    mine, wanted = old[first : first + size], new[first : first + size]
    own = {int(expert): slot for slot, expert in reversed(list(enumerate(mine.tolist())))}
    holders = _holders(old, size, sorted({*readable} - {ep_rank}))
    rows: list[Pull] = []
    messages: list[tuple[int, int]] = []
    arrived: set[int] = set()
    for row in np.flatnonzero((mine != wanted) & (wanted >= 0)).tolist():
        expert = int(wanted[row])
        if expert in own:
            rows.append(Pull(ep_rank, own[expert], row, 1))
        elif expert not in arrived:
            arrived.add(expert)
            if expert in holders:
                position = _position(old, new, expert, ep_rank, size)
                last = rows[-1] if rows else None
                rank, slot = _source(holders[expert], row, last, position)
                rows.append(Pull(rank, slot, row, 1))
            else:
                messages.append((expert, row))
    return LayerPulls(tuple(joined(rows)), tuple(messages))


def _holders(old: Slots, size: int, ranks: list[int]) -> dict[int, list[tuple[int, int]]]:
    """For each expert the ranks that hold it, each with its first slot of it."""
    found: dict[int, list[tuple[int, int]]] = {}
    for rank in ranks:
        seen = set()
        for slot, expert in enumerate(old[rank * size : (rank + 1) * size].tolist()):
            if expert >= 0 and expert not in seen:
                seen.add(expert)
                found.setdefault(expert, []).append((rank, slot))
    return found


def _source(
    holders: list[tuple[int, int]], row: int, last: Pull | None, position: int
) -> tuple[int, int]:
    """Go on where the row before was taken from; else the ranks that want an expert take turns."""
    if last is not None and last.row + 1 == row and (last.rank, last.source + 1) in holders:
        return last.rank, last.source + 1
    return holders[position % len(holders)]


def _position(old: Slots, new: Slots, expert: int, ep_rank: int, size: int) -> int:
    """How many ranks before this one receive the expert from another rank, too."""
    wants = (new.reshape(-1, size)[:ep_rank] == expert).any(axis=1)
    has = (old.reshape(-1, size)[:ep_rank] == expert).any(axis=1)
    return int((wants & ~has).sum())


def joined(rows: list[Pull]) -> Iterator[Pull]:
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
