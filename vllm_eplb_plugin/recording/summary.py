# SPDX-License-Identifier: Apache-2.0
"""What a recording says in a few numbers, and over time."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.placement.balance import layer_rank_loads, received_by_rank
from vllm_eplb_plugin.recording.recording import Recording


@dataclass(frozen=True)
class Moment:
    """A moment is one window of a recording."""

    step: int
    time: float
    tokens: float
    """Tokens of a layer that experts got, the mean over layers."""
    busiest: float
    """The busiest logical expert's load over the mean of its layer, the mean over layers."""
    balancedness: float | None
    """Mean over maximum rank load, each summed over layers, under the placement that the window was
    served by; None: it is not known, or there was no load."""


@dataclass(frozen=True)
class Summary:
    """A summary is what a table tells of one recording."""

    recording: Recording
    moments: tuple[Moment, ...]
    experts_moved: int
    """Experts that some rank received from another one, over layers and placements."""

    @property
    def balancedness(self) -> list[float]:
        """Of the windows of which it is known."""
        return [one.balancedness for one in self.moments if one.balancedness is not None]

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written to JSON."""
        recording = self.recording
        return {
            "served": asdict(recording.served),
            "windows": [asdict(one) for one in self.moments],
            "placements": len(recording.placements),
            "experts_moved": self.experts_moved,
            "outcomes": dict(Counter(one.outcome for one in recording.outcomes)),
            "warnings": list(recording.warnings),
        }


def summarize(recording: Recording) -> Summary:
    """Compute what a table and a plot tell."""
    return Summary(recording, tuple(_moments(recording)), _experts_moved(recording))


def _moments(recording: Recording) -> Iterator[Moment]:
    steps = [one.step for one in recording.placements]
    for window in recording.windows:
        load = window.load
        place = bisect_left(steps, window.step) - 1
        placement = recording.placements[place].physical_to_logical if place >= 0 else None
        tokens, highest = load.sum(axis=1), load.max(axis=1)
        busy = tokens > 0
        over_mean = highest[busy] * load.shape[1] / tokens[busy]
        yield Moment(
            window.step,
            window.time,
            float(tokens.mean()),
            float(over_mean.mean()) if len(over_mean) else 1.0,
            None if placement is None else _balancedness(load, placement, recording),
        )


def _balancedness(
    load: NDArray[np.int64], placement: NDArray[np.int64], recording: Recording
) -> float | None:
    ranks = recording.served.shape.ranks
    layers = zip(load, placement, strict=True)
    loads = np.stack([layer_rank_loads(*layer, ranks) for layer in layers])
    heaviest = float(loads.max(axis=1).sum())
    return float(loads.mean(axis=1).sum()) / heaviest if heaviest > 0 else None


def _experts_moved(recording: Recording) -> int:
    shape = recording.served.shape
    size = shape.slots // shape.ranks
    return sum(
        sum(map(len, received_by_rank(old.tolist(), new.tolist(), size)))
        for before, after in pairwise(recording.placements)
        for old, new in zip(before.physical_to_logical, after.physical_to_logical, strict=True)
    )
