# SPDX-License-Identifier: Apache-2.0
"""What a placement is worth and what it costs to reach, in numbers of every layer and rank."""

from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.problem import Floats, Integers, Problem


@dataclass(frozen=True)
class Costs:
    """The costs of reaching a placement from the one in force."""

    received: Integers
    """``[layers, ranks]``: experts that a rank gets from another one; an expert counts once,
    however many of the rank's slots hold it, and not at all if one held it before."""
    from_other_nodes: Integers
    """``[layers, ranks]``: those of them that no rank of the same node held."""

    def bytes_received(self, expert_bytes: Integers) -> Integers:
        """``[layers, ranks]``."""
        received: Integers = self.received * expert_bytes[:, None]
        return received


def costs_of(problem: Problem, placement: Integers) -> Costs:
    """Count what vLLM's transfer will receive, as ``rebalance_execute.move_to_buffer`` plans it."""
    shape = (problem.num_layers, problem.num_ranks)
    received, from_other_nodes = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    _count(
        problem.old, placement, problem.num_nodes, problem.num_experts, received, from_other_nodes
    )
    return Costs(received, from_other_nodes)


def balancedness_of_layers(problem: Problem, placement: Integers) -> Floats:
    """``[layers]``: mean over max rank load, 1.0 where there is no load."""
    highest = rank_loads(problem.load, placement, problem.num_ranks).max(axis=1)
    mean = problem.load.sum(axis=1) / problem.num_ranks
    balancedness: Floats = np.divide(mean, highest, out=np.ones_like(mean), where=highest > 0)
    return balancedness


def rank_loads(load: Floats, placement: Integers, num_ranks: int) -> Floats:
    """``[layers, ranks]``: tokens of each rank, replicas of an expert sharing equally."""
    loads = np.empty((len(load), num_ranks))
    _rank_loads(load, placement, loads)
    return loads


@compiled("void(i8[:,::1], i8[:,::1], i8, i8, i8[:,::1], i8[:,::1])", nogil=True)
def _count(old, new, nodes, experts, received, from_other_nodes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    layers, slots = new.shape
    ranks = received.shape[1]
    size, per_node = slots // ranks, slots // nodes
    for layer in range(layers):
        on_node = np.zeros((nodes, experts), np.bool_)
        for slot in range(slots):
            on_node[slot // per_node, old[layer, slot]] = True
        for rank in range(ranks):
            known = np.zeros(experts, np.bool_)
            for slot in range(rank * size, rank * size + size):
                known[old[layer, slot]] = True
            for slot in range(rank * size, rank * size + size):
                expert = new[layer, slot]
                if not known[expert]:
                    known[expert] = True
                    received[layer, rank] += 1
                    from_other_nodes[layer, rank] += not on_node[slot // per_node, expert]


@compiled("void(f8[:,::1], i8[:,::1], f8[:,::1])", nogil=True)
def _rank_loads(load, placement, loads):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    layers, slots = placement.shape
    experts, ranks = load.shape[1], loads.shape[1]
    loads[:] = 0.0
    for layer in range(layers):
        replicas = np.zeros(experts, np.int64)
        for slot in range(slots):
            replicas[placement[layer, slot]] += 1
        for slot in range(slots):
            expert = placement[layer, slot]
            loads[layer, slot // (slots // ranks)] += load[layer, expert] / replicas[expert]
