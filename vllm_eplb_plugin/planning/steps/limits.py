# SPDX-License-Identifier: Apache-2.0
"""The limits of a rearrangement, kept whatever the policy: by leaving whole layers as they are."""

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of
from vllm_eplb_plugin.planning.problem import Integers, Problem


def fits(problem: Problem, placement: Integers) -> bool:
    """Say whether what is received, and the layers that change, are within all limits."""
    limits = problem.limits
    if not limits.are_budgets:
        return True
    received = costs_of(problem, placement).bytes_received(problem.bytes_of).sum(axis=0)
    layers = int((placement != problem.old).any(axis=1).sum())
    spent = (int(received.sum()), int(received.max(initial=0)), layers)
    most = (limits.max_bytes, limits.max_bytes_per_rank, limits.max_layers)
    return all(m is None or s <= m for s, m in zip(spent, most, strict=True))


def within_limits(
    problem: Problem, placement: Integers, urgent: NDArray[np.bool_] | None = None
) -> Integers:
    """Take the layers that gain most for each byte received, as long as all limits hold.

    A policy that knows of limits, as `planning.policies.incremental` does, makes better use of
    them: move by move.

    Args:
        problem: What is planned.
        placement: What is wanted.
        urgent: ``[layers]``: those that come first, also where they gain no balance.
    """
    if not problem.limits.are_budgets:
        return placement
    limits = problem.limits
    kept: Integers = problem.old.copy()
    received = costs_of(problem, placement).bytes_received(problem.bytes_of)
    gain = balancedness_of_layers(problem, placement)
    gain -= balancedness_of_layers(problem, problem.old)
    worth = gain / np.maximum(received.sum(axis=1), 1)
    urgent = np.zeros(problem.num_layers, np.bool_) if urgent is None else urgent
    spent, layers = np.zeros(problem.num_ranks, np.int64), 0
    for layer in np.lexsort((-worth, ~urgent)):
        if (gain[layer] <= 0 and not urgent[layer]) or (
            placement[layer] == problem.old[layer]
        ).all():
            continue
        after = spent + received[layer]
        dear = limits.max_bytes is not None and after.sum() > limits.max_bytes
        dear |= limits.max_bytes_per_rank is not None and after.max() > limits.max_bytes_per_rank
        dear |= limits.max_layers is not None and layers >= limits.max_layers
        if not dear:
            kept[layer], spent, layers = placement[layer], after, layers + 1
    return kept
