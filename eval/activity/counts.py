# SPDX-License-Identifier: Apache-2.0
"""What the plugin's events say of one arm, counted."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TypeVar

from eval.activity.each_rank import (
    longest_under_way,
    map_checking_ranks,
    weight_checking_ranks,
)
from eval.activity.events import Told
from eval.activity.moves import carried_out, moves_of
from eval.activity.rank_files import RankFile, read_rank_files
from eval.activity.totals import OUTCOMES, Activity, ModelActivity, Outcome
from vllm_eplb_plugin.observe.events import (
    Event,
    EventsDropped,
    LayerCommitted,
    MapsChecked,
    ModelEvent,
    RearrangementEnded,
    RearrangementFailed,
    RearrangementFinished,
    RearrangementRejected,
    RearrangementStarted,
    WeightsChecked,
)

_EventT = TypeVar("_EventT", bound=Event)
_Model = tuple[int, int]
"""Its place among the models, and its pipeline stage: a name may be that of several."""


def read_activity(folder: Path, started: float, finished: float) -> Activity:
    """Count the events of all ranks; what moved, between two times, in Unix seconds.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    return count_activity(read_rank_files(folder), started, finished)


def count_activity(files: Sequence[RankFile], started: float, finished: float) -> Activity:
    """The same of files that are read."""
    ranks = [file.told for file in files]
    everything = [told for rank in ranks for told in rank]
    inside = [told for told in everything if started <= told.time <= finished]
    faults = [told for told in everything if isinstance(told.event, _FAULTS)]
    moved = [told for told in inside if not isinstance(told.event, _FAULTS)]
    counted = _count(moved + faults)
    plans = carried_out(everything, started, finished)
    return counted.model_copy(
        update={
            "models": [
                one.model_copy(
                    update={"moves": moves_of(plans.get((one.model_index, one.stage), []))}
                )
                for one in counted.models
            ],
            "under_way_seconds": longest_under_way(ranks, started, finished),
            "checking_ranks": weight_checking_ranks(inside),
            "map_checking_ranks": map_checking_ranks(inside),
        }
    )


_FAULTS = (
    RearrangementRejected,
    RearrangementFailed,
    WeightsChecked,
    MapsChecked,
    EventsDropped,
)


def _count(told: Sequence[Told]) -> Activity:
    """Add up events of all ranks; what all ranks do alike is taken from rank 0 of each stage."""
    firsts = [one for one in told if one.source.speaks_for_all]
    finished = _of_kind(firsts, RearrangementFinished)
    weights, maps = _of_kind(told, WeightsChecked), _of_kind(told, MapsChecked)
    models = _models(told)
    return Activity(
        rearrangements=len({event.rearrangement for event in finished}),
        rearrangements_started=len(
            {event.rearrangement for event in _of_kind(firsts, RearrangementStarted)}
        ),
        skipped=sum(model.skipped for model in models),
        placements_rejected=sum(model.rejected for model in models),
        drained=sum(model.drained for model in models),
        failed=sum(model.failed for model in models),
        stalled=sum(model.stalled for model in models),
        failures=sorted({event.reason for event in _of_kind(told, RearrangementFailed)}),
        models=models,
        usual_seconds=median(event.seconds for event in finished) if finished else None,
        modes=sorted({event.mode for event in _of_kind(firsts, RearrangementEnded)}),
        layers_committed=len(_of_kind(firsts, LayerCommitted)),
        slots_changed=[slots for model in models for slots in model.slots_changed],
        weight_checks=sum(event.slots for event in weights),
        weight_mismatches=sum(len(event.mismatched_slots) for event in weights),
        map_checks=sum(event.experts for event in maps),
        map_mismatches=sum(len(event.mismatched_experts) for event in maps),
        events_dropped=sum(event.number for event in _of_kind(told, EventsDropped)),
        balancedness_before=_mean(event.balancedness_before for event in finished),
        balancedness_expected=_mean(event.balancedness_expected for event in finished),
    )


def _models(told: Iterable[Told]) -> list[ModelActivity]:
    models: dict[_Model, ModelActivity] = {}
    ended: dict[_Model, dict[Outcome, set[int]]] = defaultdict(lambda: defaultdict(set))
    for one in told:
        source, event = one.source, one.event
        if not isinstance(event, ModelEvent):
            continue
        # What one rank alone fails in, the others never hear of.
        if not source.speaks_for_all and not isinstance(event, RearrangementFailed):
            continue
        key = (event.model_index, source.stage)
        if key not in models:
            models[key] = ModelActivity(
                model=event.model, model_index=event.model_index, stage=source.stage
            )
        if isinstance(event, RearrangementEnded):
            ended[key][outcome_of(event)].add(event.rearrangement)
        _add_slots(models[key].slots_changed, event)
    return [
        model.model_copy(update={outcome: len(ended[key][outcome]) for outcome in OUTCOMES})
        for key, model in sorted(models.items())
    ]


def outcome_of(event: RearrangementEnded) -> Outcome:
    """In one word."""
    return next(one for one in OUTCOMES if event.kind == f"rearrangement_{one}")


def _add_slots(slots_changed: list[int], event: Event) -> None:
    """A layer that never changes is told of only when a rearrangement finishes."""
    if isinstance(event, RearrangementFinished):
        missing = len(event.slots_changed) - len(slots_changed)
        slots_changed.extend([0] * missing)
    elif isinstance(event, LayerCommitted):
        slots_changed.extend([0] * (event.layer + 1 - len(slots_changed)))
        slots_changed[event.layer] += event.slots_changed


def _of_kind(told: Iterable[Told], kind: type[_EventT]) -> list[_EventT]:
    return [one.event for one in told if isinstance(one.event, kind)]


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return fmean(listed) if listed else None
