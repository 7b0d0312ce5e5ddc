# SPDX-License-Identifier: Apache-2.0
"""What the plugin's events say of one arm, counted."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, model_validator

from eval.activity.each_rank import checking_ranks, longest_under_way
from eval.activity.events import Told
from eval.activity.moved_models import MovedModel, labels
from eval.activity.rank_files import RankFile, read_rank_files
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

Outcome = Literal["finished", "skipped", "rejected", "drained", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

_EventT = TypeVar("_EventT", bound=Event)
_Model = tuple[int, int]
"""Its place among the models, and its pipeline stage: a name may be that of several."""


class ModelActivity(BaseModel):
    """What became of the rearrangements of one model, or of its part on one pipeline stage."""

    model: str
    """Its name."""
    model_index: int
    """0: the served model, 1: a drafter."""
    stage: int
    """Of the pipeline."""
    finished: int = 0
    """Rearrangements of that outcome (docs/events.md), as the next four."""
    skipped: int = 0
    """That would have gained nothing."""
    rejected: int = 0
    """Whose placement was not used."""
    drained: int = 0
    """Of which vLLM threw away what was not committed yet."""
    failed: int = 0
    """That ended without their last layer, on any rank."""
    slots_changed: list[int] = []
    """For each of its MoE layers, over all commits."""


class Activity(BaseModel):
    """What moved while the questions were asked, and what went wrong at any time.

    Faults count from a file's first event to its last: what rejected and failed rearrangements,
    mismatches and dropped events say of a server does not depend on when they were told.
    """

    rearrangements: int = 0
    """Rearrangements that finished and moved experts of some model."""
    rearrangements_started: int = 0
    """Rearrangements that started; one may still be under way at the last answer."""
    skipped: int = 0
    """By which nothing would have been gained; this and the next three are summed over models."""
    placements_rejected: int = 0
    """Results of a policy that were not used."""
    drained: int = 0
    """Of which vLLM threw away what was not committed yet."""
    failed: int = 0
    """That ended without their last layer, on any rank."""
    failures: list[str] = []
    """Why these did, each reason once."""
    models: list[ModelActivity] = []
    """The same for each model: the served one, stage by stage, and then a drafter."""
    under_way_seconds: float | None = None
    """How long questions were asked while one was under way that got no outcome; none: no such."""
    usual_seconds: float | None = None
    """Median time of the rearrangements that finished."""
    modes: list[str] = []
    """Modes of those that have an outcome: sync, async."""
    layers_committed: int = 0
    """Layers whose new placement became visible to the model."""
    slots_changed: list[int] = []
    """For each MoE layer, the slots that got another logical expert, over all commits."""
    weight_checks: int = 0
    """Slots whose weights were compared with those of their logical expert, all ranks."""
    weight_mismatches: int = 0
    """Of those, slots with other weights."""
    checking_ranks: list[int] = []
    """The EP ranks that compared weights, on every pipeline stage."""
    map_checks: int = 0
    """Logical experts that the router's maps were checked for, summed over ranks and commits."""
    map_mismatches: int = 0
    """Of those, logical experts with other slots than the placement gives."""
    events_dropped: int = 0
    """Events that ranks could not write: the other counts are of what is left."""
    balancedness_before: float | None = None
    """Mean over rearrangements, under the old placement; none: no rearrangement."""
    balancedness_expected: float | None = None
    """The same load under the new placement."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_schemas(cls, values: Any) -> Any:
        """Results from before outcomes were told call what failed ``abandoned``."""
        if isinstance(values, dict) and "abandoned" in values:
            return {"failed": values["abandoned"]} | values
        return values

    @property
    def ended(self) -> int:
        """Outcomes, each model counted."""
        others = self.skipped + self.placements_rejected + self.drained + self.failed
        return (sum(one.finished for one in self.models) or self.rearrangements) + others

    def other_outcomes(self) -> str:
        """What did not finish, such as ``2 skipped, 1 failed``, model by model; empty: nothing."""
        if len(self.models) < 2:
            return _told(self.skipped, self.placements_rejected, self.drained, self.failed)
        counts = [_told(one.skipped, one.rejected, one.drained, one.failed) for one in self.models]
        found = zip(self.labels(), counts, strict=True)
        return "; ".join(f"{label}: {told}" for label, told in found if told)

    def labels(self) -> list[str]:
        """By which people tell ``models`` apart."""
        return labels([MovedModel(one.model_index, one.stage, one.model) for one in self.models])


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
    activity = _count(moved + faults, checking_ranks(inside))
    return activity.model_copy(
        update={"under_way_seconds": longest_under_way(ranks, started, finished)}
    )


_FAULTS = (
    RearrangementRejected,
    RearrangementFailed,
    WeightsChecked,
    MapsChecked,
    EventsDropped,
)


def _count(told: Sequence[Told], checking_ranks: list[int]) -> Activity:
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
        failures=sorted({event.reason for event in _of_kind(told, RearrangementFailed)}),
        models=models,
        usual_seconds=median(event.seconds for event in finished) if finished else None,
        modes=sorted({event.mode for event in _of_kind(firsts, RearrangementEnded)}),
        layers_committed=len(_of_kind(firsts, LayerCommitted)),
        slots_changed=[slots for model in models for slots in model.slots_changed],
        weight_checks=sum(event.slots for event in weights),
        weight_mismatches=sum(len(event.mismatched_slots) for event in weights),
        checking_ranks=checking_ranks,
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


def _told(*counts: int) -> str:
    """Of the outcomes after ``finished``, in their order."""
    others = zip(counts, OUTCOMES[1:], strict=True)
    return ", ".join(f"{number} {outcome}" for number, outcome in others if number)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return fmean(listed) if listed else None
