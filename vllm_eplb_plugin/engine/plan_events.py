# SPDX-License-Identifier: Apache-2.0
"""What is told of a plan that is carried out; made on the thread that writes it.

None stands between steps of a long computation, for `observe.delivery` to make a pause.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vllm_eplb_plugin.observe.events import (
    Event,
    LayerCommitted,
    LoadMeasured,
    Mode,
    Placement,
    RearrangementFinished,
    RearrangementPlanned,
    Trigger,
)
from vllm_eplb_plugin.observe.identity import ModelId
from vllm_eplb_plugin.placement.balance import layer_rank_loads, received_by_rank
from vllm_eplb_plugin.planning.guard import Plan


class Moment(NamedTuple):
    """A moment has the first fields of a `RearrangementEvent`."""

    model: str
    model_index: int
    rearrangement: int
    step: int
    mode: Mode


def placed_at_first(
    model: ModelId, rearrangement: int, step: int, num_ranks: int, placement: torch.Tensor
) -> Placement:
    """Tell a placement that no rearrangement has made."""
    return Placement(
        model=model.model,
        model_index=model.model_index,
        rearrangement=rearrangement,
        step=step,
        mode=None,
        num_ranks=num_ranks,
        physical_to_logical_map=placement.tolist(),
        logical_load=None,
    )


def layers_committed(moment: Moment, plan: Plan, layers: Sequence[int]) -> Iterator[Event | None]:
    """Make one event for each layer."""
    for layer in layers:
        yield LayerCommitted(*moment, layer, plan.slots_changed[layer])


def load_measured(moment: Moment, plan: Plan) -> Iterator[Event | None]:
    """Tell how balanced what was served is under the placement in force."""
    balancedness = []
    tokens, heaviest = np.zeros(_ranks_of(plan, plan.old)), 0.0
    for loads in _layers_rank_loads(plan, plan.old):
        balancedness.append(_mean_over(float(loads.max()), loads))
        tokens += loads
        heaviest += float(loads.max())
        yield None
    rounded = tokens.round().astype(int).tolist()
    yield LoadMeasured(*moment, balancedness, _mean_over(heaviest, tokens), rounded)


def _mean_over(heaviest: float, loads: NDArray[np.float64]) -> float:
    return float(loads.mean()) / heaviest if heaviest > 0 else 1.0


@dataclass(frozen=True)
class Origin:
    """How a plan came about."""

    policy: str = "vllm"
    steps: tuple[str, ...] = ()
    wanted: torch.Tensor | None = None
    """``[layers, physical]``: what it would be without limits on what is moved; None: the same."""

    def is_held_back(self, old: torch.Tensor) -> bool:
        """Say whether a plan that is the old placement would be another one without limits."""
        return self.wanted is not None and not torch.equal(self.wanted, old)


@dataclass(frozen=True)
class Planned:
    """A rearrangement whose plan all ranks agreed on, and which is carried out now."""

    moment: Moment
    plan: Plan
    origin: Origin
    trigger: Trigger
    expert_bytes: Sequence[int]
    seconds: float

    def events(self) -> Iterator[Event | None]:
        """Tell what is moved, and why."""
        plan, origin = self.plan, self.origin
        experts: list[int] = []
        of_ranks = [0] * plan.num_ranks
        from_other_nodes = [0] * plan.num_ranks
        for layer, size in enumerate(self.expert_bytes):
            received = _received(plan, layer, plan.new)
            experts.append(sum(map(len, received)))
            for rank, count in enumerate(_from_other_nodes(plan, layer, received)):
                of_ranks[rank] += size * len(received[rank])
                from_other_nodes[rank] += size * count
            yield None
        before = yield from _balancedness(plan, plan.old)
        expected = yield from _balancedness(plan, plan.new)
        layers, held_back = yield from self._held_back(sum(of_ranks))
        yield RearrangementPlanned(
            *self.moment,
            sum(map(bool, plan.slots_changed)),
            self.seconds,
            origin.policy,
            list(origin.steps),
            self.trigger,
            plan.seconds,
            experts,
            of_ranks,
            from_other_nodes,
            before,
            expected,
            layers,
            held_back,
        )

    def _held_back(self, sent: int) -> Generator[None, None, tuple[int, int]]:
        """Layers that stay although they would have changed, and bytes not sent, for limits."""
        wanted = self.origin.wanted
        if wanted is None:
            return 0, 0
        layers, would_be_sent = 0, 0
        for layer, size in enumerate(self.expert_bytes):
            stays = not self.plan.slots_changed[layer]
            layers += stays and bool((wanted[layer] != self.plan.old[layer]).any())
            would_be_sent += size * sum(map(len, _received(self.plan, layer, wanted)))
            yield None
        return layers, max(would_be_sent - sent, 0)


@dataclass(frozen=True)
class Finished:
    """A rearrangement whose last layer that changes is committed."""

    moment: Moment
    plan: Plan
    expert_bytes: Sequence[int]
    """Of one expert, for each layer."""
    seconds: float
    """Since the rearrangement started."""

    def events(self, with_placement: bool) -> Iterator[Event | None]:
        """Tell that it finished, and, on one rank, where experts are now."""
        plan = self.plan
        before = yield from _balancedness(plan, plan.old)
        expected = yield from _balancedness(plan, plan.new)
        sent = 0
        for layer, size in enumerate(self.expert_bytes):
            sent += size * sum(map(len, _received(plan, layer, plan.new)))
            yield None
        yield RearrangementFinished(
            *self.moment, self.seconds, before, expected, plan.slots_changed, sent
        )
        if with_placement:
            yield from placement_events(self.moment, plan, ())


def placement_events(
    moment: Moment, plan: Plan, layers_left: Collection[int]
) -> Iterator[Event | None]:
    """Tell the placement in force once a plan was carried out but for some layers."""
    placement: list[list[int]] = []
    load: list[list[int]] = []
    for layer, tokens in enumerate(plan.logical_load):
        slots = plan.old[layer] if layer in layers_left else plan.new[layer]
        placement.append(slots.tolist())
        load.append(tokens.long().tolist())
        yield None
    yield Placement(*moment, plan.num_ranks, placement, load)


def _balancedness(plan: Plan, placement: torch.Tensor) -> Generator[None, None, float]:
    """As `placement.balance` has it, layer by layer."""
    tokens, heaviest = np.zeros(_ranks_of(plan, placement)), 0.0
    for loads in _layers_rank_loads(plan, placement):
        tokens += loads
        heaviest += float(loads.max())
        yield None
    return _mean_over(heaviest, tokens)


def _layers_rank_loads(plan: Plan, placement: torch.Tensor) -> Iterator[NDArray[np.float64]]:
    """For each layer, the window's tokens of each rank."""
    ranks = _ranks_of(plan, placement)
    for tokens, slots in zip(plan.logical_load.numpy(), placement.numpy(), strict=True):
        yield layer_rank_loads(tokens, slots, ranks)


def _ranks_of(plan: Plan, placement: torch.Tensor) -> int:
    """Under elastic EP the number of ranks changes with the placement: slots a rank do not."""
    return int(placement.shape[1] // (plan.new.shape[1] // plan.num_ranks))


def _received(plan: Plan, layer: int, new: torch.Tensor) -> list[set[int]]:
    """Experts of one layer that each rank would receive from another one."""
    size = plan.new.shape[1] // plan.num_ranks
    return received_by_rank(plan.old[layer].tolist(), new[layer].tolist(), size)


def _from_other_nodes(plan: Plan, layer: int, received: list[set[int]]) -> list[int]:
    """How many of the experts that each rank receives no rank of its node has."""
    ranks = len(received) // plan.num_nodes
    size = plan.new.shape[1] // plan.num_nodes
    old = plan.old[layer].tolist()
    here = [set(old[node * size : (node + 1) * size]) for node in range(plan.num_nodes)]
    return [len(experts - here[rank // ranks]) for rank, experts in enumerate(received)]
