# SPDX-License-Identifier: Apache-2.0
"""What is counted of one arm's events."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, model_validator

from eval.activity.moved_models import MovedModel, labels
from eval.activity.moves import Moves

Outcome = Literal["finished", "skipped", "rejected", "drained", "failed", "stalled"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class ModelActivity(BaseModel):
    """What became of the rearrangements of one model, or of its part on one pipeline stage."""

    model: str
    """Its name."""
    model_index: int
    """0: the served model, 1: a drafter."""
    stage: int
    """Of the pipeline."""
    finished: int = 0
    """Rearrangements of that outcome (docs/events.md), as the next five."""
    skipped: int = 0
    """That would have gained nothing."""
    rejected: int = 0
    """Whose placement was not used."""
    drained: int = 0
    """Of which vLLM threw away what was not committed yet."""
    failed: int = 0
    """That ended without their last layer, on any rank."""
    stalled: int = 0
    """That were given up, because they stood still on some rank."""
    slots_changed: list[int] = []
    """For each of its MoE layers, over all commits."""
    moves: Moves | None = None
    """Of those that finished; none: none did, or events of an earlier release do not tell."""


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
    """By which nothing would have been gained; this and the next four are summed over models."""
    placements_rejected: int = 0
    """Results of a policy that were not used."""
    drained: int = 0
    """Of which vLLM threw away what was not committed yet."""
    failed: int = 0
    """That ended without their last layer, on any rank."""
    stalled: int = 0
    """That were given up, because they stood still on some rank."""
    failures: list[str] = []
    """Why these two did, each reason once."""
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
    map_checking_ranks: list[int] = []
    """The EP ranks that compared the router's maps, on every pipeline stage."""
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
        finished = sum(one.finished for one in self.models) or self.rearrangements
        return finished + sum(self._others)

    def other_outcomes(self) -> str:
        """What did not finish, such as ``2 skipped, 1 failed``, model by model; empty: nothing."""
        if len(self.models) < 2:
            return _told(*self._others)
        counts = [
            _told(one.skipped, one.rejected, one.drained, one.failed, one.stalled)
            for one in self.models
        ]
        found = zip(self.labels(), counts, strict=True)
        return "; ".join(f"{label}: {told}" for label, told in found if told)

    @property
    def _others(self) -> tuple[int, ...]:
        rejected = self.placements_rejected
        return self.skipped, rejected, self.drained, self.failed, self.stalled

    @property
    def moves(self) -> list[Moves]:
        """Of its models, as far as they are told."""
        return [one.moves for one in self.models if one.moves is not None]

    @property
    def bytes_received(self) -> int:
        """Expert weights that all ranks got, as far as it is told."""
        return sum(sum(moves.bytes_received) for moves in self.moves)

    def labels(self) -> list[str]:
        """By which people tell ``models`` apart."""
        return labels([MovedModel(one.model_index, one.stage, one.model) for one in self.models])


def _told(*counts: int) -> str:
    """Of the outcomes after ``finished``, in their order."""
    others = zip(counts, OUTCOMES[1:], strict=True)
    return ", ".join(f"{number} {outcome}" for number, outcome in others if number)
