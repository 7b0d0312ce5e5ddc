# SPDX-License-Identifier: Apache-2.0
"""What a placement makes of a load: pure functions on arrays."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Placement: TypeAlias = NDArray[np.int64]
"""``[layers, physical]``, the logical expert in each slot; -1: none."""

Load: TypeAlias = NDArray[np.float64]
"""Tokens; the last axis is experts or ranks."""


def count_replicas(placement: Placement, experts: int) -> NDArray[np.int64]:
    """``[layers, experts]``, how many slots hold each logical expert."""
    layers = placement.shape[0]
    filled = placement >= 0
    keys = (placement + experts * np.arange(layers)[:, None])[filled]
    return np.bincount(keys, minlength=layers * experts).reshape(layers, experts)


def replicas_by_rank(slots: NDArray[np.int64], experts: int, ranks: int) -> NDArray[np.int64]:
    """``[ranks, experts]``, the replicas of each logical expert on each rank, of one layer."""
    return count_replicas(slots.reshape(ranks, -1), experts)


def rank_loads(load: Load, placement: Placement, ranks: int) -> Load:
    """Spread expert loads over ranks, the replicas of an expert sharing equally.

    Args:
        load: ``[layers, experts]``.
        placement: ``[layers, physical]``; the first slots are those of rank 0.
        ranks: Each has as many slots.

    Returns:
        ``[layers, ranks]``.
    """
    replicas = count_replicas(placement, load.shape[1]).clip(min=1)
    share = np.take_along_axis(load / replicas, placement.clip(min=0), axis=1)
    share[placement < 0] = 0
    by_rank: Load = share.reshape(placement.shape[0], ranks, -1).sum(axis=2)
    return by_rank


def balancedness(by_rank: Load) -> float:
    """Mean over maximum rank load, each summed over the layers; 1 is perfect, and no load is."""
    highest = float(by_rank.max(axis=-1).sum())
    return float(by_rank.mean(axis=-1).sum()) / highest if highest else 1.0
