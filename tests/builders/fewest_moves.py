# SPDX-License-Identifier: Apache-2.0
"""The fewest experts that ranks have to receive for a layer to be balanced, proven by a MILP."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from vllm_eplb_plugin.planning.problem import Problem


def fewest_received(problem: Problem, highest: float) -> int:
    """Solve one layer exactly, replicas and placement at once.

    Variables are, for each expert e, number of replicas k and rank r: how many of e's k replicas r
    holds, so that loads are linear in them; whether e has k replicas; and whether r receives e. No
    rank gets a second replica of an expert, as no policy of this package gives it one.

    Args:
        problem: Of one layer.
        highest: The load that no rank may exceed.

    Returns:
        The experts that ranks receive.

    Raises:
        ValueError: There is no such placement, or none was proven to be the best.
    """
    [load], ranks, slots = problem.load, problem.num_ranks, problem.num_slots
    experts, most, size = len(load), slots - len(load) + 1, slots // ranks
    numbers = np.arange(experts * (most * ranks + most + ranks))
    held, has, gets = np.split(numbers, np.cumsum([experts * most * ranks, experts * most]))
    held, has = held.reshape(experts, most, ranks), has.reshape(experts, most)
    gets = gets.reshape(experts, ranks)
    before = np.zeros((experts, ranks))
    np.add.at(before, (problem.old[0], np.arange(slots) // size), 1)
    rows: list[tuple[dict[int, float], float, float]] = []
    for expert in range(experts):
        rows.append((dict.fromkeys(has[expert].tolist(), 1.0), 1, 1))
        for number in range(most):
            replicas = dict.fromkeys(held[expert, number].tolist(), 1.0)
            rows.append((replicas | {int(has[expert, number]): -number - 1.0}, 0, 0))
        for rank in np.flatnonzero(before[expert] == 0):
            there = dict.fromkeys(held[expert, :, rank].tolist(), 1.0)
            rows.append((there | {int(gets[expert, rank]): -1.0}, -np.inf, 0))
    for rank in range(ranks):
        on_rank = held[:, :, rank].ravel().tolist()
        rows.append((dict.fromkeys(on_rank, 1.0), size, size))
        shares = (load[:, None] / (np.arange(most) + 1)).ravel().tolist()
        rows.append((dict(zip(on_rank, shares, strict=True)), -np.inf, highest))
    matrix = lil_array((len(rows), len(numbers)))
    for row, (terms, _, _) in enumerate(rows):
        for column, value in terms.items():
            matrix[row, column] = value
    cost, at_most = np.zeros(len(numbers)), np.ones(len(numbers))
    cost[gets] = 1.0
    at_most[held] = np.maximum(before, 1)[:, None, :]
    lower, upper = ([row[side] for row in rows] for side in (1, 2))
    answer = milp(
        cost,
        constraints=LinearConstraint(matrix.tocsr(), lower, upper),
        integrality=np.ones(len(numbers)),
        bounds=Bounds(0, at_most),
        options={"mip_rel_gap": 0.0},
    )
    if answer.status != 0:
        raise ValueError(answer.message)
    return round(answer.fun)
