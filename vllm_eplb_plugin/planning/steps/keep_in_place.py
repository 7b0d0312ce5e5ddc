# SPDX-License-Identifier: Apache-2.0
"""What any policy plans, with its experts where they are already, as far as balance allows."""

from dataclasses import dataclass

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.keeping import assignment as _assignment
from vllm_eplb_plugin.planning.keeping import exchanges as _exchanges
from vllm_eplb_plugin.planning.keeping.assignment import assign_ranks, familiarity
from vllm_eplb_plugin.planning.keeping.exchanges import MEAN, exchange, shares_of
from vllm_eplb_plugin.planning.problem import Integers, Problem
from vllm_eplb_plugin.planning.slots import keep_slots


@dataclass(frozen=True)
class KeepInPlace:
    """A step after which fewer experts are received, and never more.

    It gives the experts of a rank together to the rank that had most of them, exchanges experts of
    nearly the same share between ranks, and leaves in its slot what stays on its rank. Groups that
    are on one node stay together on one.
    """

    slack: float = 0.01
    """Balancedness that a layer may lose: none that is below ``1 - slack`` loses any."""

    def __post_init__(self) -> None:
        if not 0 <= self.slack < 1:
            raise ValueError(f"slack is {self.slack:g}, not from 0 to below 1")

    def __call__(self, problem: Problem, placement: Integers) -> Integers:
        """Plan ``[layers, slots]``."""
        kept: Integers = placement.copy()
        limit = int(MEAN / (1 - self.slack))
        nodes, together = problem.num_nodes, problem.respects_groups
        _keep(problem.load, kept, problem.old, problem.num_ranks, nodes, together, limit)
        keep_slots(kept, problem.old, problem.num_ranks)
        return kept


@compiled(
    "void(f8[:,::1], i8[:,::1], i8[:,::1], i8, i8, b1, i8)",
    uses=(_assignment, _exchanges),
    nogil=True,
)
def _keep(load, placement, old, ranks, nodes, together, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    layers, slots = placement.shape
    size, reach = slots // ranks, ranks // nodes if together else ranks
    for layer in range(layers):
        share, new = shares_of(load[layer], placement[layer], ranks), placement[layer]
        highest = limit
        for rank in range(ranks):
            highest = max(highest, share[new[rank * size : rank * size + size]].sum())
        while True:
            value = familiarity(new, old[layer], ranks, nodes, load.shape[1])
            goes_to = assign_ranks(value, nodes, together)
            before = new.copy()
            for rank in range(ranks):
                there, here = goes_to[rank] * size, rank * size
                new[there : there + size] = before[here : here + size]
            if not exchange(new, old[layer], share, highest, ranks, reach):
                break
        # Which slots they get is then a matter of which experts they are.
        for rank in range(ranks):
            new[rank * size : rank * size + size].sort()
