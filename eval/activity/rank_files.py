# SPDX-License-Identifier: Apache-2.0
"""The events of every rank, read once, and what their files lack by themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.activity.events import DELIVERY_SECONDS, Told, files_of_all_ranks, read_events
from vllm_eplb_plugin.observe.events import (
    EventsDropped,
    ModelEvent,
    Placement,
    RearrangementEnded,
    RearrangementStarted,
    Source,
)

_CLOCK_SECONDS = DELIVERY_SECONDS
"""By which a clock may be set back; events that several threads tell differ by less."""


@dataclass(frozen=True)
class RankFile:
    """One rank's events but for placements, in the order of its file."""

    path: Path
    told: list[Told]
    cut: bool
    """Its last line has no end."""

    @property
    def source(self) -> Source | None:
        """Of the first event; none: no event."""
        return self.told[0].source if self.told else None

    def gaps(self, until: float) -> Iterator[str]:
        """What shows that events are missing, or are not those of this rank.

        Args:
            until: What is cut off later than this, in Unix seconds, is not missed.
        """
        source = self.source
        if source is None:
            if self.cut:
                yield f"{self.path.name} is cut off in its first line"
            return
        others = {one.source.global_rank for one in self.told if one.source != source}
        if others:
            yield f"{self.path.name} holds events of rank {_listed(others | {source.global_rank})}"
        if self.path.name != f"rank{source.global_rank}.jsonl":
            yield f"{self.path.name} holds events of rank {source.global_rank}"
        yield from self._other_models()
        dropped = [one.event.number for one in self.told if isinstance(one.event, EventsDropped)]
        if dropped:
            yield f"rank {source.global_rank} could not write {sum(dropped)} events"
        if self.cut and self.told[-1].time <= until:
            yield f"{self.path.name} is cut off in a line"
        if any(_goes_back(self.told)):
            yield f"the times in {self.path.name} go back"
        yield from self._missing_outcomes()

    def _other_models(self) -> Iterator[str]:
        """A model has one name as long as its server runs."""
        names: dict[int, str] = {}
        for told in self.told:
            event = told.event
            if isinstance(event, ModelEvent):
                name = names.setdefault(event.model_index, event.model)
                if name != event.model:
                    yield f"{self.path.name} holds events of models {name} and {event.model}"
                    return

    def _missing_outcomes(self) -> Iterator[str]:
        """Every rearrangement of every model has one outcome, and they are counted from 1."""
        last: dict[int, int] = {}
        under_way: set[int] = set()
        for told in self.told:
            event = told.event
            if isinstance(event, RearrangementStarted):
                if event.model_index in under_way:
                    yield (
                        f"{self.path.name} tells that rearrangement {event.rearrangement} starts "
                        "where the outcome of one is due"
                    )
                    return
                under_way.add(event.model_index)
            if not isinstance(event, RearrangementEnded):
                continue
            under_way.discard(event.model_index)
            expected = last.get(event.model_index, 0) + 1
            if event.rearrangement != expected:
                yield (
                    f"{self.path.name} tells the outcome of rearrangement {event.rearrangement} "
                    f"where that of {expected} is due"
                )
                return
            last[event.model_index] = event.rearrangement


def read_rank_files(folder: Path) -> list[RankFile]:
    """The files of all ranks, in their order; there may be none.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    return [
        RankFile(path, list(read_events(path, [Placement])), _is_cut(path))
        for path in files_of_all_ranks(folder)
    ]


def _goes_back(told: list[Told]) -> Iterator[bool]:
    latest = told[0].time
    for one in told:
        yield one.time < latest - _CLOCK_SECONDS
        latest = max(latest, one.time)


def _is_cut(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return size > 0 and file.read() != b"\n"


def _listed(ranks: set[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))
