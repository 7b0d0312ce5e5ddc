# SPDX-License-Identifier: Apache-2.0
"""Which rank's experts go to which rank, so that most of them are there already."""

import numpy as np

from vllm_eplb_plugin.planning.inner import inner

_FAR = np.iinfo(np.int64).max


@inner
def best_assignment(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Assign each row a column of its own, for the highest sum of an i8 ``[n, n]``.

    Rows come one by one, each by the shortest way of exchanges (Jonker and Volgenant 1987). A row
    keeps its own column unless another assignment is worth more.
    """
    n = len(value)
    row_of = np.full(n + 1, -1)
    row_price, column_price = np.zeros(n, np.int64), np.zeros(n + 1, np.int64)
    for row in range(n):
        at, row_of[n] = n, row
        distance, before = np.full(n, _FAR), np.full(n, -1)
        seen = np.zeros(n + 1, np.bool_)
        while row_of[at] >= 0:
            seen[at] = True
            here, step, following = row_of[at], _FAR, -1
            for column in range(n):
                if seen[column]:
                    continue
                cost = -value[here, column] - row_price[here] - column_price[column]
                if cost < distance[column]:
                    distance[column], before[column] = cost, at
                if distance[column] < step:
                    step, following = distance[column], column
            for column in range(n + 1):
                if seen[column]:
                    row_price[row_of[column]] += step
                    column_price[column] -= step
                elif column < n:
                    distance[column] -= step
            at = following
        while at != n:
            row_of[at] = row_of[before[at]]
            at = before[at]
    kept, reached = 0, 0
    column_of = np.empty(n, np.int64)
    for column in range(n):
        column_of[row_of[column]] = column
        kept += value[column, column]
        reached += value[row_of[column], column]
    return column_of if reached > kept else np.arange(n)


@inner
def familiarity(new, old, ranks, nodes, experts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``[ranks, ranks]``: how well a rank's experts would suit another rank.

    It counts those that were on it; between equals, those that were on its node.
    """
    slots = len(new)
    size, per_node = slots // ranks, slots // nodes
    on_rank = np.zeros((ranks, experts), np.bool_)
    on_node = np.zeros((nodes, experts), np.bool_)
    for slot in range(slots):
        on_rank[slot // size, old[slot]] = True
        on_node[slot // per_node, old[slot]] = True
    value = np.zeros((ranks, ranks), np.int64)
    last = np.full(experts, -1)
    for slot in range(slots):
        rank, expert = slot // size, new[slot]
        if last[expert] == rank:
            continue
        last[expert] = rank
        for other in range(ranks):
            value[rank, other] += on_rank[other, expert] * (slots + 1)
            value[rank, other] += on_node[other * nodes // ranks, expert]
    return value


@inner
def assign_ranks(value, nodes, whole_nodes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``[ranks]``: where each rank's experts go; with whole nodes, those of a node together."""
    if not whole_nodes:
        return best_assignment(value)
    ranks = len(value)
    size = ranks // nodes
    within = np.empty((nodes, nodes, size), np.int64)
    of_nodes = np.zeros((nodes, nodes), np.int64)
    for node in range(nodes):
        for other in range(nodes):
            here, there = node * size, other * size
            block = value[here : here + size, there : there + size].copy()
            within[node, other] = best_assignment(block)
            for rank in range(size):
                of_nodes[node, other] += block[rank, within[node, other, rank]]
    node_of = best_assignment(of_nodes)
    goes_to = np.empty(ranks, np.int64)
    for node in range(nodes):
        for rank in range(size):
            goes_to[node * size + rank] = node_of[node] * size + within[node, node_of[node], rank]
    return goes_to
