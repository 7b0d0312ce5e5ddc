# SPDX-License-Identifier: Apache-2.0
"""What completions of one traffic, a server's log and its events say together."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from eval.activity.counts import count_activity
from eval.activity.rank_files import RankFile
from eval.load.streams import Stream
from eval.results.throughput import Measurement, Percentiles, Traffic


class Busy(NamedTuple):
    """Seconds of a core's time that two processes have had."""

    harness: float
    front_end: float | None
    """Of the server; None: not known."""

    def since(self, before: "Busy") -> "Busy":
        """What they have had since then."""
        served = None
        if self.front_end is not None and before.front_end is not None:
            served = self.front_end - before.front_end
        return Busy(self.harness - before.harness, served)


def measured(
    traffic: Traffic,
    number: int,
    group: int,
    streams: Sequence[Stream],
    began: int,
    busy: Busy,
) -> Measurement:
    """One traffic in one round.

    Args:
        traffic: What was asked.
        number: Of the round, from 1.
        group: Number of the servers that were up together, from 1.
        streams: All completions.
        began: Rearrangements meanwhile, as vLLM's log tells.
        busy: While these were asked.
    """
    asked = min(one.asked for one in streams)
    seconds = max(one.ended for one in streams) - asked
    return Measurement(
        traffic=traffic.name,
        round=number,
        group=group,
        asked_from=asked,
        seconds=seconds,
        prompt_tokens=sum(one.prompt_tokens for one in streams),
        generated_tokens=sum(one.generated for one in streams),
        completions=len(streams),
        whole=sum(one.generated >= traffic.tokens for one in streams),
        first_token=Percentiles.of([one.arrived[0] - one.asked for one in streams if one.arrived]),
        between_tokens=Percentiles.of(
            [after - before for one in streams for before, after in pairwise(one.arrived)]
        ),
        asking=round(busy.harness / seconds, 3),
        front_end=None if busy.front_end is None else round(busy.front_end / seconds, 3),
        logged_rearrangements=began,
    )


def with_moves(one: Measurement, files: Sequence[RankFile]) -> Measurement:
    """The same, with what the plugin's events tell of the time of it.

    Args:
        one: Of an arm.
        files: Its events.
    """
    told = count_activity(files, one.asked_from, one.asked_from + one.seconds)
    if not told.rearrangements_started and not told.ended:
        return one
    return one.model_copy(
        update={
            "balancedness": told.balancedness_before,
            "experts_received": sum(sum(moves.experts_received) for moves in told.moves),
            "bytes_received": told.bytes_received,
        }
    )
