# SPDX-License-Identifier: Apache-2.0
"""What the plugin's events say of one arm (docs/events.md of the plugin has the lines)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from eval.errors import EventsError

_SCHEMA = 1


class Evidence(BaseModel):
    """Counts over the time in which the questions were asked."""

    rearrangements: int = 0
    """Rearrangements that finished."""
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
    balancedness_before: float | None = None
    """Mean over rearrangements, under the old placement; none: no rearrangement."""
    balancedness_expected: float | None = None
    """The same load under the new placement."""


def read_evidence(folder: Path, started: float, finished: float) -> Evidence:
    """Count the events of all ranks between two times, in Unix seconds.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    ranks = {path: list(read_events(path)) for path in sorted(folder.glob("rank*.jsonl"))}
    inside = [
        event
        for events in ranks.values()
        for event in events
        if started <= event["time"] <= finished
    ]
    return count(inside)


def count(events: Sequence[dict[str, Any]]) -> Evidence:
    """Add up events of all ranks; what all ranks do alike is taken from rank 0."""
    first_rank = [event for event in events if event["rank"] == 0]
    finished = _of_kind(first_rank, "rearrangement_finished")
    commits = _of_kind(first_rank, "layer_committed")
    checks = _of_kind(events, "weights_checked")
    return Evidence(
        rearrangements=len({event["rearrangement"] for event in finished}),
        modes=sorted({event["mode"] for event in finished}),
        layers_committed=len(commits),
        slots_changed=_slots_changed(commits, finished),
        placements_rejected=len(_of_kind(first_rank, "placement_rejected")),
        weight_checks=sum(event["slots"] for event in checks),
        weight_mismatches=sum(len(event["mismatched_slots"]) for event in checks),
        balancedness_before=_mean(event["balancedness_before"] for event in finished),
        balancedness_expected=_mean(event["balancedness_expected"] for event in finished),
    )


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


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of one rank, in their order.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            # Every whole line ends with a newline: one that does not was cut off in writing.
            if line.endswith("\n"):
                yield _parse(line.rstrip("\n"), f"{path}, line {number}")


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        event = from_json(line)
    except ValueError as error:
        raise EventsError(f"{where}: not JSON ({error}): {line!r}") from error
    if not isinstance(event, dict) or not {"schema", "event", "time", "rank"} <= event.keys():
        raise EventsError(f"{where}: not an event: {line!r}")
    if event["schema"] != _SCHEMA:
        raise EventsError(
            f"{where}: events of schema {event['schema']!r}, this harness reads {_SCHEMA}: "
            "use the harness of the plugin's release"
        )
    return event
