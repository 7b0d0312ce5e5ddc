# SPDX-License-Identifier: Apache-2.0
"""What plans moved, from the events of those that were carried out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict

from eval.activity.events import Told
from vllm_eplb_plugin.observe.events import RearrangementFinished, RearrangementPlanned


class Moves(BaseModel):
    """What the rearrangements of one model moved that finished and whose plans are told."""

    model_config = ConfigDict(allow_inf_nan=False)

    rearrangements: int
    """So many."""
    policies: list[str]
    """What planned them: the setting's name, or `vllm` without the setting `planning`."""
    steps: list[str]
    """What placements went through then."""
    triggers: dict[str, int]
    """How many of them were planned for which reason (docs/events.md)."""
    layers_changed: int
    """Layers in which some slot got another logical expert, over all of them."""
    layers: int
    """Layers that could have, over all of them."""
    experts_received: list[int]
    """For each of its MoE layers, experts that some rank got from another one."""
    bytes_received: list[int]
    """For each EP rank, expert weights that it got."""
    bytes_from_other_nodes: list[int]
    """Of these, those that no rank of its node had."""
    balancedness_before: float
    """Mean, under the old placement."""
    balancedness_expected: float
    """The same loads under the new placements."""
    planning_seconds: float
    """Median, for policy, steps and limits."""
    layers_held_back: int
    """Layers that stayed for limits on what is moved, over all of them."""
    bytes_held_back: int
    """Expert weights that were not sent for these limits."""


def moves_of(plans: Sequence[RearrangementPlanned]) -> Moves | None:
    """Add up the plans of one model; None: there is none."""
    if not plans:
        return None
    return Moves(
        rearrangements=len(plans),
        policies=sorted({plan.policy for plan in plans}),
        steps=list(dict.fromkeys(step for plan in plans for step in plan.steps)),
        triggers=dict(Counter(plan.trigger for plan in plans)),
        layers_changed=sum(plan.layers_changed for plan in plans),
        layers=sum(len(plan.experts_received) for plan in plans),
        experts_received=_sums(plan.experts_received for plan in plans),
        bytes_received=_sums(plan.bytes_received for plan in plans),
        bytes_from_other_nodes=_sums(plan.bytes_from_other_nodes for plan in plans),
        balancedness_before=fmean(plan.balancedness_before for plan in plans),
        balancedness_expected=fmean(plan.balancedness_expected for plan in plans),
        planning_seconds=median(plan.planning_seconds for plan in plans),
        layers_held_back=sum(plan.layers_held_back for plan in plans),
        bytes_held_back=sum(plan.bytes_held_back for plan in plans),
    )


def carried_out(
    told: Iterable[Told], started: float, finished: float
) -> dict[tuple[int, int], list[RearrangementPlanned]]:
    """Plans whose rearrangement finished between two times, in Unix seconds.

    A plan may have been made before them.

    Returns:
        For each model and its pipeline stage, from what the first rank of the stage tells.
    """
    planned: dict[tuple[int, int], RearrangementPlanned] = {}
    done: dict[tuple[int, int], list[RearrangementPlanned]] = {}
    for one in told:
        event = one.event
        if not one.source.speaks_for_all:
            continue
        if isinstance(event, RearrangementPlanned):
            planned[event.model_index, one.source.stage] = event
        elif isinstance(event, RearrangementFinished) and started <= one.time <= finished:
            key = event.model_index, one.source.stage
            plan = planned.get(key)
            if plan is not None and plan.rearrangement == event.rearrangement:
                done.setdefault(key, []).append(plan)
    return done


def _sums(lists: Iterable[Sequence[int]]) -> list[int]:
    """Element by element; elastic EP changes the number of ranks."""
    return [sum(values) for values in zip_longest(*lists, fillvalue=0)]
