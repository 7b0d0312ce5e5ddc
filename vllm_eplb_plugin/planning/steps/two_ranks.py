# SPDX-License-Identifier: Apache-2.0
"""What any policy plans, with experts on two ranks each: no weight is lost with one of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.placement.survival import layer_lost_without
from vllm_eplb_plugin.planning.inner import inner
from vllm_eplb_plugin.planning.problem import Integers, Problem
from vllm_eplb_plugin.planning.slots import keep_slots
from vllm_eplb_plugin.planning.spreading import block as _block
from vllm_eplb_plugin.planning.spreading import relief as _relief
from vllm_eplb_plugin.planning.spreading import seconds as _seconds
from vllm_eplb_plugin.planning.spreading.block import MEAN, loads_of, prices_of, start_block
from vllm_eplb_plugin.planning.spreading.relief import relieve
from vllm_eplb_plugin.planning.spreading.seconds import ANY, FITTING, FREE, give_seconds


@dataclass(frozen=True)
class TwoRanks:
    """A step after which experts are on two ranks: all of them where there are as many redundant
    slots as experts, else as many as balance allows.

    It takes second replicas on one rank, then those of the experts that need them least, and never
    the second place of an expert. Groups that are on one node stay there.
    """

    max_loss: float = 0.02
    """Balancedness that a layer may lose: none that is below ``1 - max_loss`` loses any. It binds
    where there are fewer redundant slots than experts; elsewhere, swaps bring a layer back to it
    as far as they can."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss <= 1:
            raise ValueError(f"max_loss is {self.max_loss:g}, not from 0 to 1")

    def __call__(self, problem: Problem, placement: Integers) -> Integers:
        """Plan ``[layers, slots]``."""
        spread: Integers = placement.copy()
        limit = int(MEAN / (1 - self.max_loss)) if self.max_loss < 1 else np.iinfo(np.int64).max
        size = problem.num_experts // problem.num_groups if problem.respects_groups else 0
        where = (problem.num_ranks, problem.num_nodes, problem.limits.other_node_cost)
        _spread(problem.load, spread, problem.old, *where, size, limit)
        changed = (spread != placement).any(axis=1)
        rows = spread[changed]
        keep_slots(rows, problem.old[changed], problem.num_ranks)
        spread[changed] = rows
        return spread

    def gains_beside_balance(self, problem: Problem, placement: Integers) -> NDArray[np.bool_]:
        """``[layers]``: where fewer experts are on one rank only than under the one in force."""
        fewer: NDArray[np.bool_] = _single(problem, placement) < _single(problem, problem.old)
        return fewer


def _single(problem: Problem, placement: Integers) -> Integers:
    """``[layers]``: experts that are on one rank only."""
    lost = [layer_lost_without(slots, problem.num_ranks).sum() for slots in placement]
    return np.array(lost, np.int64)


@inner
def _groups_are_whole(placement, group_size, nodes, groups):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    node_of, per_node = np.full(groups, -1), len(placement) // nodes
    for slot in range(len(placement)):
        group = placement[slot] // group_size
        if node_of[group] >= 0 and node_of[group] != slot // per_node:
            return False
        node_of[group] = slot // per_node
    return True


@compiled(
    "void(f8[:,::1], i8[:,::1], i8[:,::1], i8, i8, f8, i8, i8)",
    uses=(_block, _seconds, _relief),
    nogil=True,
)
def _spread(load, placement, old, ranks, nodes, other_node_cost, group_size, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    layers, experts = load.shape
    for layer in range(layers):
        row, units = placement[layer], loads_of(load[layer], ranks)
        price = prices_of(old[layer], ranks, nodes, experts, other_node_cost)
        highest = np.max(start_block(row, units, price, 0, ranks, nodes, limit).rank_load)
        whole = group_size > 0 and _groups_are_whole(row, group_size, nodes, experts // group_size)
        reach = ranks // nodes if whole else ranks
        if reach < 2:
            continue
        for first in range(0, ranks, reach):
            where = (first, first + reach, nodes, max(limit, highest))
            block = start_block(row, units, price, *where)
            give_seconds(block, FREE)
            give_seconds(block, FITTING)
            if np.sum(block.replicas) >= 2 * np.sum(block.replicas > 0):
                give_seconds(block, ANY)
                relieve(block)
