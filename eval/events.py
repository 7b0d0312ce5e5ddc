# SPDX-License-Identifier: Apache-2.0
"""What the plugin's events say of one arm (docs/events.md of the plugin has the lines)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from eval.errors import EventsError

DELIVERY_SECONDS = 1.0
"""After which an event is in its file."""
_SCHEMA = 1
_HEAD = 100
"""Bytes of a line in which its kind stands."""


class Evidence(BaseModel):
    """Counts over the time in which the questions were asked."""

    rearrangements: int = 0
    """Rearrangements that finished."""
    rearrangements_started: int = 0
    """Rearrangements that started; one may still be under way at the last answer."""
    abandoned: int = 0
    """Rearrangements that never finished although a later one of the same model started."""
    under_way_seconds: float | None = None
    """How long questions were asked while one was under way that never finished; none: no such."""
    usual_seconds: float | None = None
    """Median time of the rearrangements that finished."""
    modes: list[str] = []
    """Modes of those: sync, async."""
    layers_committed: int = 0
    """Placements of one layer that became visible to the model."""
    slots_changed: list[int] = []
    """For each MoE layer, the slots that got another logical expert, over all commits."""
    placements_rejected: int = 0
    """Results of a policy that were not used."""
    weight_checks: int = 0
    """Slots whose weights were compared with those of their logical expert, all ranks."""
    weight_mismatches: int = 0
    """Of those, slots with other weights."""
    checking_ranks: list[int] = []
    """The EP ranks that compared weights."""
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


def read_evidence(folder: Path, started: float, finished: float) -> Evidence:
    """Count the events of all ranks between two times, in Unix seconds.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    ranks = [list(read_events(path)) for path in sorted(folder.glob("rank*.jsonl"))]
    inside = [event for events in ranks for event in events if started <= event["time"] <= finished]
    return count(inside).model_copy(update=_unfinished(ranks, started, finished))


def count(events: Sequence[dict[str, Any]]) -> Evidence:
    """Add up events of all ranks; what all ranks do alike is taken from rank 0."""
    first_rank = [event for event in events if event["rank"] == 0]
    finished = _of_kind(first_rank, "rearrangement_finished")
    commits = _of_kind(first_rank, "layer_committed")
    checks = _of_kind(events, "weights_checked")
    map_checks = _of_kind(events, "maps_checked")
    return Evidence(
        rearrangements=len({event["rearrangement"] for event in finished}),
        rearrangements_started=len(
            {event["rearrangement"] for event in _of_kind(first_rank, "rearrangement_started")}
        ),
        usual_seconds=median(event["seconds"] for event in finished) if finished else None,
        modes=sorted({event["mode"] for event in finished}),
        layers_committed=len(commits),
        slots_changed=_slots_changed(commits, finished),
        placements_rejected=len(_of_kind(first_rank, "placement_rejected")),
        weight_checks=sum(event["slots"] for event in checks),
        weight_mismatches=sum(len(event["mismatched_slots"]) for event in checks),
        checking_ranks=sorted({event["rank"] for event in checks}),
        map_checks=sum(event["experts"] for event in map_checks),
        events_dropped=sum(event["number"] for event in _of_kind(events, "events_dropped")),
        map_mismatches=sum(len(event["mismatched_experts"]) for event in map_checks),
        balancedness_before=_mean(event["balancedness_before"] for event in finished),
        balancedness_expected=_mean(event["balancedness_expected"] for event in finished),
    )


def _unfinished(
    ranks: Sequence[Sequence[dict[str, Any]]], started: float, finished: float
) -> dict[str, Any]:
    """`Evidence.abandoned` and `Evidence.under_way_seconds` of the rank with the most of each.

    vLLM starts no rearrangement before the last one is over, so on every rank and for every model
    a start is followed by its end, unless something hangs. One that began before the questions
    counts, too, if it should have ended while they were asked.
    """
    abandoned, under_way = 0, None
    for events in ranks:
        open_since: dict[str, float] = {}
        given_up = 0
        for event in events:
            if event["event"] == "rearrangement_started" and event["time"] <= finished:
                given_up += event["model"] in open_since and event["time"] >= started
                open_since[event["model"]] = event["time"]
            elif event["event"] == "rearrangement_finished":
                open_since.pop(event["model"], None)
        abandoned = max(abandoned, given_up)
        for since in open_since.values():
            under_way = max(under_way or 0.0, finished - max(since, started))
    return {"abandoned": abandoned, "under_way_seconds": under_way}


def _of_kind(events: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def _slots_changed(
    commits: Sequence[dict[str, Any]], finished: Sequence[dict[str, Any]]
) -> list[int]:
    """Per MoE layer, model after model: a drafter's layers follow those of its target."""
    totals: dict[str, list[int]] = {}
    for event in finished:
        layers = totals.setdefault(event["model"], [])
        layers.extend([0] * (len(event["slots_changed"]) - len(layers)))
    for event in commits:
        layers = totals.setdefault(event["model"], [])
        layers.extend([0] * (event["layer"] + 1 - len(layers)))
        layers[event["layer"]] += event["slots_changed"]
    return [slots for layers in totals.values() for slots in layers]


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return fmean(listed) if listed else None


def read_events(path: Path, without: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The events of one rank, in their order, but for kinds that are passed over unread.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    unread = [f'"{kind}"'.encode() for kind in without]
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            # Every whole line ends with a newline: one that does not was cut off in writing.
            if line.endswith(b"\n") and not any(kind in line[:_HEAD] for kind in unread):
                yield _parse(line.rstrip(b"\n"), f"{path}, line {number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        event = from_json(line)
    except ValueError as error:
        raise EventsError(f"{where}: not JSON ({error}): {_short(line)!r}") from error
    if not isinstance(event, dict) or not {"schema", "event", "time", "rank"} <= event.keys():
        raise EventsError(f"{where}: not an event: {_short(line)!r}")
    if event["schema"] != _SCHEMA:
        raise EventsError(
            f"{where}: events of schema {event['schema']!r}, this harness reads {_SCHEMA}: "
            "use the harness of the plugin's release"
        )
    return event


def _short(line: bytes) -> str:
    return line[:200].decode(errors="replace")
