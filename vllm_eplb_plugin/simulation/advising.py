# SPDX-License-Identifier: Apache-2.0
"""Which of the settings that were played to take, and whether any is worth it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vllm_eplb_plugin.planning.triggers import changed_share
from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.candidate import NOTHING, parse_candidate
from vllm_eplb_plugin.simulation.combination import Grid
from vllm_eplb_plugin.simulation.summary import Row

WORTH_MEMORY = 0.01
"""Balancedness that more redundant experts have to gain, and EPLB itself."""
WORTH_MOVING = 0.005
"""Balancedness that more moved bytes have to gain."""
FEWEST_WINDOWS = 10
STILL = 0.02
"""Part of the load that is on other experts than in the first window; less is no change."""

Verdict = Literal["worth it", "already balanced", "costs more than it gains", "too short", "still"]


@dataclass(frozen=True)
class Choice:
    """A choice is what was found, and why."""

    verdict: Verdict
    without: Row
    """As it is served without EPLB: the fewest redundant experts, and nothing moves."""
    chosen: Row
    """The fewest redundant experts and then the fewest bytes for which more gain too little
    (`WORTH_MEMORY`, `WORTH_MOVING`)."""
    others: Sequence[Row]
    """All that were played."""
    gain: float
    """Part of the time of expert layers that it saves at most."""
    moving: float | None
    """Part of the time that the link is busy for it; None: the recording has no times."""

    def beside(self, **changes: int | str) -> Row | None:
        """The row of a combination that differs from the chosen one in some fields."""
        wanted = _settings(self.chosen) | changes
        return next((row for row in self.others if _settings(row) == wanted), None)


def grid_of(recording: Recording) -> Grid:
    """Combine a sensible few: redundant experts up to two a rank, each policy, three intervals."""
    shape = recording.served.shape
    fewest = -shape.experts % shape.ranks
    redundant = {fewest + each * shape.ranks for each in range(3)} | {shape.slots - shape.experts}
    return Grid(
        [parse_candidate(name) for name in (NOTHING, "default", "incremental")],
        sorted(redundant),
        intervals=[every for every in (1, 2, 4) if every < len(recording.windows)],
    )


def choose(recording: Recording, rows: Sequence[Row]) -> Choice:
    """Choose from what was played of `grid_of`, with a bandwidth of the link."""
    without = min((row for row in rows if row.policy == NOTHING), key=lambda row: row.redundant)
    moving = [row for row in rows if row.policy != NOTHING]
    redundant = min(row.redundant for row in _close(moving, WORTH_MEMORY))
    beside = [row for row in moving if row.redundant == redundant]
    chosen = min(_close(beside, WORTH_MOVING), key=lambda row: (row.bytes, row.plans))
    gain = 1 - without.as_served / chosen.as_served if chosen.as_served else 0.0
    busy = _part_of_time(recording, chosen)
    return Choice(_verdict(recording, without, gain, busy), without, chosen, rows, gain, busy)


def _close(rows: Sequence[Row], worth: float) -> list[Row]:
    best = max(row.as_served for row in rows)
    return [row for row in rows if row.as_served >= best - worth]


def largest_change(recording: Recording) -> float:
    """The largest part of a window's load that is on other experts than in the first one."""
    first, *rest = (window.load.astype(np.float64) for window in recording.windows)
    return max((changed_share(load, first) for load in rest), default=0.0)


def seconds_of(recording: Recording) -> float | None:
    """From the first window to the last; None: unknown."""
    first, last = recording.windows[0].time, recording.windows[-1].time
    return last - first if 0 < first < last else None


def _verdict(recording: Recording, without: Row, gain: float, moving: float | None) -> Verdict:
    if len(recording.windows) < FEWEST_WINDOWS or without.mean is None:
        return "too short"
    if gain < WORTH_MEMORY:
        return "already balanced"
    if moving is not None and moving >= gain:
        return "costs more than it gains"
    return "still" if largest_change(recording) < STILL else "worth it"


def _part_of_time(recording: Recording, row: Row) -> float | None:
    seconds = seconds_of(recording)
    return None if seconds is None or row.link_s is None else row.link_s / seconds


def _settings(row: Row) -> dict[str, int | str]:
    return {"policy": row.policy, "redundant": row.redundant, "interval": row.interval}
