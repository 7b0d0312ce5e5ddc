# SPDX-License-Identifier: Apache-2.0
"""What became of rearrangements since something happened."""

from pathlib import Path

from eval.activity.counts import outcome_of
from eval.activity.events import files_that_speak_for_all, read_events
from vllm_eplb_plugin.observe.events import (
    LayerCommitted,
    MapsChecked,
    Placement,
    RearrangementEnded,
    WeightsChecked,
)

_UNUSED = (Placement, LayerCommitted, WeightsChecked, MapsChecked)


def outcomes_after(folder: Path, since: float) -> dict[int, str]:
    """The outcome of each rearrangement that ended after ``since``, in Unix seconds, by number.

    Where several models or stages tell of one, the last that did.

    Raises:
        EventsError: A line is no event.
    """
    return {
        told.event.rearrangement: outcome_of(told.event)
        for file in files_that_speak_for_all(folder)
        for told in read_events(file, without=_UNUSED)
        if isinstance(told.event, RearrangementEnded) and told.time >= since
    }
