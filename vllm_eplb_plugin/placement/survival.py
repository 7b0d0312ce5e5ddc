# SPDX-License-Identifier: Apache-2.0
"""Which ranks a placement could do without: every expert of every layer is on another one, too."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Slots: TypeAlias = NDArray[np.integer] | torch.Tensor
"""``[physical]``: what the slots of a layer hold, -1 where one is empty."""


def survivable_ranks(placement: Slots | Iterable[Slots], num_ranks: int) -> list[int]:
    """Find the ranks without which every expert would still have a slot in every layer.

    Args:
        placement: As for `lost_without`.
        num_ranks: EP ranks.
    """
    lost = lost_without(placement, num_ranks)
    return [rank for rank, experts in enumerate(lost) if experts == 0]


def lost_without(placement: Slots | Iterable[Slots], num_ranks: int) -> list[int]:
    """Count for each rank the experts, over all layers, that would have no slot without it.

    Args:
        placement: ``[layers, physical]``, an array or a tensor on the CPU, or one layer after
            another.
        num_ranks: EP ranks; it divides ``physical``, slots lie rank after rank.
    """
    lost = np.zeros(num_ranks, np.int64)
    for slots in placement:
        lost += layer_lost_without(slots, num_ranks)
    return [int(experts) for experts in lost]


def layer_lost_without(slots: Slots, num_ranks: int) -> NDArray[np.int64]:
    """Count the same in one layer.

    Args:
        slots: ``[physical]``, -1 where a slot is empty, which helps nobody.
        num_ranks: EP ranks.

    Returns:
        ``[ranks]``.
    """
    experts = np.asarray(slots).astype(np.int64)
    rank_of = np.arange(len(experts)) // (len(experts) // num_ranks)
    filled = experts >= 0
    # Replicas of an expert that are on one rank are one place.
    places = np.unique(experts[filled] * num_ranks + rank_of[filled])
    expert, rank = np.divmod(places, num_ranks)
    alone = np.bincount(expert)[expert] == 1
    lost: NDArray[np.int64] = np.bincount(rank[alone], minlength=num_ranks)
    return lost
