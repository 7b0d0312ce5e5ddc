# SPDX-License-Identifier: Apache-2.0
"""What a long run asks of the events besides their sums: when."""

from pathlib import Path

from eval.events import read_events


def finished_after(folder: Path, started: float, ended: float) -> list[float]:
    """Seconds from ``started`` to the end of each rearrangement before ``ended``, in order.

    Args:
        folder: With the events of all ranks; rank 0 tells.
        started: In Unix seconds, as ``ended``.

    Raises:
        EventsError: A line is no event.
    """
    file = folder / "rank0.jsonl"
    if not file.exists():
        return []
    others = ("placement", "layer_committed", "weights_checked", "maps_checked")
    return [
        event["time"] - started
        for event in read_events(file, without=others)
        if event["event"] == "rearrangement_finished" and started <= event["time"] <= ended
    ]
