# SPDX-License-Identifier: Apache-2.0
"""What a long run asks of the events besides their sums: when, and on which ranks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.events import read_events


def finished_after(folder: Path, started: float, ended: float) -> list[float]:
    """Seconds from ``started`` to the end of each rearrangement before ``ended``, in order.

    Args:
        folder: With the events of all ranks; rank 0 tells.
        started: In Unix seconds, as ``ended``.

    Raises:
        EventsError: A line is no event.
    """
    events = _between(folder / "rank0.jsonl", started, ended)
    return [
        event["time"] - started for event in events if event["event"] == "rearrangement_finished"
    ]


def checking_ranks(folder: Path, started: float, ended: float) -> list[int]:
    """The EP ranks that compared weights between two times, after a layer was committed.

    Raises:
        EventsError: A line is no event.
    """
    checks = (
        event
        for file in folder.glob("rank*.jsonl")
        for event in _between(file, started, ended)
        if event["event"] == "weights_checked"
    )
    return sorted({event["rank"] for event in checks})


def _between(file: Path, started: float, ended: float) -> Iterator[dict[str, Any]]:
    if file.exists():
        events = read_events(file, without=("placement", "layer_committed", "maps_checked"))
        yield from (event for event in events if started <= event["time"] <= ended)
