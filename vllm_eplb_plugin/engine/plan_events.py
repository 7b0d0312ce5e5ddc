# SPDX-License-Identifier: Apache-2.0
"""What is told of a plan that is carried out; made on the thread that writes it.

None stands between steps of a long computation, for `observe.delivery` to make a pause.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from vllm_eplb_plugin.observe.events import (
    Event,
    LayerCommitted,
    Mode,
    Placement,
    RearrangementFinished,
)
from vllm_eplb_plugin.placement.balance import count_received_experts, layer_rank_loads
from vllm_eplb_plugin.planning.guard import Plan


class Moment(NamedTuple):
    """A moment has the first fields of a `RearrangementEvent`."""

    model: str
    model_index: int
    rearrangement: int
    step: int
    mode: Mode


def layers_committed(moment: Moment, plan: Plan, layers: Sequence[int]) -> Iterator[Event | None]:
    """Make one event for each layer."""
    for layer in layers:
        yield LayerCommitted(*moment, layer, plan.slots_changed[layer])


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
            sent += size * _received(plan, layer)
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
    # Under elastic EP the number of ranks changes with the placement: slots a rank do not.
    ranks = placement.shape[1] // (plan.new.shape[1] // plan.num_ranks)
    mean = heaviest = 0.0
    for tokens, slots in zip(plan.logical_load.numpy(), placement.numpy(), strict=True):
        loads = layer_rank_loads(tokens, slots, ranks)
        mean += float(loads.mean())
        heaviest += float(loads.max())
        yield None
    return mean / heaviest if heaviest > 0 else 1.0


def _received(plan: Plan, layer: int) -> int:
    """Experts of one layer that some rank receives from another one."""
    old, new = plan.old[layer : layer + 1], plan.new[layer : layer + 1]
    if old.shape != new.shape:
        resized = torch.full_like(new, -1)
        shared = min(old.shape[1], new.shape[1])
        resized[:, :shared] = old[:, :shared]
        old = resized
    [received] = count_received_experts(old, new, plan.num_ranks)
    return received
