# SPDX-License-Identifier: Apache-2.0
"""What async mode serves otherwise than it is simulated: windows in which placements change."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vllm_eplb_plugin.planning.costs import rank_loads
from vllm_eplb_plugin.planning.problem import Floats, Integers
from vllm_eplb_plugin.recording.recording import Recording, Window


@dataclass(frozen=True)
class Mixing:
    """A mixing is how far the windows of a recording are from being served by one placement."""

    share: float
    """Part of the time between windows in which the rearrangement after the first was under way."""
    at_once: float
    """Balancedness of the windows, mean, if all layers changed at the beginning of it."""
    at_least: float
    """The same if every layer changed at its end."""


def mixing_of(recording: Recording) -> Mixing | None:
    """Count windows that follow a rearrangement, as they were recorded.

    A layer that changes after a part of the window has served that part in its old placement. Its
    fullest rank has then at most the fullest rank's load of both, each for its part of the time, if
    the load is even over the window.

    Returns:
        None: the recording knows no times, no outcomes or no placements, or has no such window.
    """
    found = list(_windows(recording))
    if not found:
        return None
    shares = [share for share, _, _ in found]
    mean = [float(np.mean([window[at] for window in found])) for at in (1, 2)]
    return Mixing(float(np.mean(shares)), *mean)


def _windows(recording: Recording) -> Iterator[tuple[float, float, float]]:
    """Share, balancedness at once and at least, of each window after a rearrangement."""
    ended = {one.step: one.time for one in recording.outcomes}
    ranks = recording.served.shape.ranks
    for earlier, window in pairwise(recording.windows):
        seconds = window.time - earlier.time
        if earlier.step not in ended or earlier.time <= 0 or seconds <= 0:
            continue
        old = _fullest(recording, window, earlier.step - 1, ranks)
        new = _fullest(recording, window, earlier.step, ranks)
        if old is None or new is None or not new.sum():
            continue
        share = min(1.0, max(0.0, (ended[earlier.step] - earlier.time) / seconds))
        mixed = np.maximum(share * old + (1 - share) * new, new)
        mean = window.load.sum() / ranks
        yield share, float(mean / new.sum()), float(mean / mixed.sum())


def _fullest(recording: Recording, window: Window, step: int, ranks: int) -> Floats | None:
    """Load of each layer's fullest rank ``[layers]``, in the last placement up to a step."""
    placements: list[Integers] = [
        one.physical_to_logical for one in recording.placements if one.step <= step
    ]
    if not placements:
        return None
    fullest: Floats = rank_loads(window.load.astype(np.float64), placements[-1], ranks).max(axis=1)
    return fullest
