# SPDX-License-Identifier: Apache-2.0
"""What streams and step times say together of one arm."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eval.errors import ServerError
from eval.load.streams import Stream
from eval.results.latency import Distribution, LatencyTimes

FIRST_TOKENS = 32
"""Of each completion of a steady load, which are not counted: prompts are read meanwhile."""


class StepTime(NamedTuple):
    """One engine step of one rank."""

    time: float
    """At its end, in Unix seconds."""
    seconds: float
    rearranging: bool


def times_of_steady(streams: Sequence[Stream], steps: Path) -> LatencyTimes:
    """While every completion was under way; no steps if one did not get that far.

    Args:
        streams: All of them, asked at the same time.
        steps: The folder of step times.

    Raises:
        ServerError: A line is no step time.
    """
    counted = [stream.arrived[FIRST_TOKENS:] for stream in streams]
    if not all(counted):
        return _times(streams, counted, [])
    start, end = max(times[0] for times in counted), min(times[-1] for times in counted)
    return _times(streams, counted, read_steps(steps, start, end))


def times_of_turns(streams: Sequence[Stream], steps: Path, began: int) -> LatencyTimes:
    """From the first request to the last token.

    Args:
        streams: In the order in which they were asked.
        steps: The folder of step times.
        began: Rearrangements in this time, as vLLM's log tells.

    Raises:
        ServerError: A line is no step time.
    """
    ranks = read_steps(steps, streams[0].asked, max(stream.ended for stream in streams))
    times = _times(streams, [stream.arrived for stream in streams], ranks)
    if not began or not ranks:
        return times
    mean = seconds_rearranging(ranks[0]) / began * 1e3
    return times.model_copy(update={"rearrangement_ms": round(mean, 3)})


def read_steps(folder: Path, start: float, end: float) -> list[list[StepTime]]:
    """Steps of each rank between two times, in Unix seconds.

    Raises:
        ServerError: A line is no step time.
    """
    files = sorted(folder.glob("steps*.jsonl"))
    return [[one for one in _steps(file) if start <= one.time <= end] for file in files]


def seconds_rearranging(steps: Sequence[StepTime]) -> float:
    """For how long rearrangements were under way, by the steps of one rank."""
    spans = (list(span) for moving, span in groupby(steps, lambda one: one.rearranging) if moving)
    return sum(span[-1].time - span[0].time + span[0].seconds for span in spans)


def _times(
    streams: Sequence[Stream],
    counted: Sequence[Sequence[float]],
    steps: Sequence[Sequence[StepTime]],
) -> LatencyTimes:
    between = [after - before for times in counted for before, after in pairwise(times)]
    slow = (np.array(between) > 2 * np.median(between)).mean() if between else 0.0
    inside = [step for rank in steps for step in rank]
    rearranging = [step.seconds for step in inside if step.rearranging]
    return LatencyTimes(
        rearranging_steps=round(len(rearranging) / len(inside), 4) if inside else 0.0,
        state_manager=Distribution.of(rearranging),
        between_tokens=Distribution.of(between),
        slow=round(float(slow), 6),
        gpu_memory_mib=None,
        completions=[stream.generated for stream in streams],
    )


def _steps(file: Path) -> Iterator[StepTime]:
    # The last line may be one that is still being written.
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            step = json.loads(line)
            yield StepTime(float(step["time"]), float(step["seconds"]), bool(step["rearranging"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ServerError(f"{file}, line {number} is no step time: {error!r}") from error
