# SPDX-License-Identifier: Apache-2.0
"""Planning problems from a seed: the same on every machine and with every numpy."""

import numpy as np

from vllm_eplb_plugin.planning.problem import Integers, Limits, Problem


class Draws:
    """Integers from a bit generator's raw output.

    What numpy's ``Generator`` makes of it may differ by release, and floating-point draws by the
    machine's mathematical library.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def below(self, limit: int) -> int:
        """From 0 to below ``limit``."""
        return int(self._bits.random_raw()) % limit

    def one_of(self, *values: float | None) -> float | None:
        return values[self.below(len(values))]

    def shuffled(self, values: Integers) -> Integers:
        """The same in another order."""
        order = list(range(len(values)))
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return values[order]


def drawn_problem(seed: int) -> Problem:
    """A problem of 1 to 64 experts on 1 to 8 ranks, with and without groups, twins and limits."""
    draws = Draws(seed)
    nodes = 1 + draws.below(2)
    ranks = nodes * (1 + draws.below(8 // nodes))
    groups, experts, slots = _sizes(draws, nodes, ranks)
    layers = 1 + draws.below(3)
    old = np.stack([_placement(draws, nodes, groups, experts, slots) for _ in range(layers)])
    load = np.array([[_tokens(draws) for _ in range(experts)] for _ in range(layers)], np.float64)
    bytes_of = np.array([1 + draws.below(3) for _ in range(layers)], np.int64)
    return Problem(load, old, ranks, nodes, groups, bytes_of, limits=_limits(draws))


def _sizes(draws: Draws, nodes: int, ranks: int) -> tuple[int, int, int]:
    """Groups, experts and slots of a layer; each node has room for its part of the groups."""
    groups = nodes * (1 + draws.below(3)) if draws.below(3) == 0 else 1
    experts = groups * (1 + draws.below(64 // groups))
    size = -(-experts // ranks) + draws.below(3)
    return groups, experts, ranks * size


def _placement(draws: Draws, nodes: int, groups: int, experts: int, slots: int) -> Integers:
    """A third are vLLM's first one, in turn; in the others a node has whole groups, if it can."""
    if draws.below(3) == 0:
        return np.arange(slots, dtype=np.int64) % experts
    parts = nodes if groups % nodes == 0 else 1
    order = draws.shuffled(np.arange(groups))
    size, rows = experts // groups, []
    for mine in order.reshape(parts, -1):
        own = (mine[:, None] * size + np.arange(size)).ravel()
        more = [own[draws.below(len(own))] for _ in range(slots // parts - len(own))]
        rows.append(draws.shuffled(np.concatenate([own, np.array(more, np.int64)])))
    return np.concatenate(rows)


def _tokens(draws: Draws) -> int:
    """Skewed, with ties and zeros."""
    return draws.below(1000) >> draws.below(11)


def _limits(draws: Draws) -> Limits:
    cost = 4.0 if draws.below(2) else 1.0
    if draws.below(3):
        return Limits(other_node_cost=cost)
    budgets = [None if draws.below(2) else draws.below(13) for _ in range(2)]
    return Limits(*budgets, None if draws.below(2) else draws.below(4), 0.01, cost)
