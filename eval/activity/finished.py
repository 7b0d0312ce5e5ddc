# SPDX-License-Identifier: Apache-2.0
"""What a long run asks of the events besides their sums: when."""

from pathlib import Path

from eval.activity.events import files_that_speak_for_all, read_events
from vllm_eplb_plugin.observe.events import (
    LayerCommitted,
    MapsChecked,
    Placement,
    RearrangementFinished,
    WeightsChecked,
)

_UNUSED = (Placement, LayerCommitted, WeightsChecked, MapsChecked)


def finished_after(folder: Path, started: float, ended: float) -> list[float]:
    """Seconds from ``started`` until each rearrangement before ``ended`` had finished, in order.

    With several models or pipeline stages it has when the last of them has.

    Args:
        folder: With the events of all ranks.
        started: In Unix seconds, as ``ended``.

    Raises:
        EventsError: A line is no event.
    """
    last: dict[int, float] = {}
    for file in files_that_speak_for_all(folder):
        for told in read_events(file, without=_UNUSED):
            if isinstance(told.event, RearrangementFinished) and started <= told.time <= ended:
                number = told.event.rearrangement
                last[number] = max(last.get(number, told.time), told.time)
    return sorted(time - started for time in last.values())
