# SPDX-License-Identifier: Apache-2.0
"""What ranks received in each rearrangement of one arm, over time."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from markupsafe import Markup

from eval.activity.timeline import Rearrangement
from eval.report.charts import DOTS_UP_TO, time_scale
from eval.report.sizes import size, unit_of
from eval.report.svg import stems
from vllm_eplb_plugin.simulation.drawing import Chart, Scale, dots, polyline, rule


class Traffic(NamedTuple):
    """One rearrangement."""

    time: float
    """When it finished, in seconds since the first question."""
    received: int
    """Bytes, by all ranks."""
    busiest: int
    """By the one with the most."""


def traffic_of(done: Sequence[Rearrangement]) -> list[Traffic]:
    """Of those whose events tell."""
    return [
        Traffic(one.time, sum(one.planned.bytes_received), max(one.planned.bytes_received))
        for one in done
        if one.planned is not None and one.planned.bytes_received
    ]


def traffic_scale(most: int) -> Scale:
    """From nothing to the most bytes that a chart has to show."""
    return Scale(0, max(1.05 * most, 1))


def traffic_chart(
    done: Sequence[Rearrangement], value: Scale, others: Sequence[float] = ()
) -> Chart | None:
    """Bytes of each rearrangement, and of its busiest rank; the time is that of balancedness.

    Args:
        done: Those that finished.
        value: Of bytes, the same for all arms that stand beside each other.
        others: When others ended, in seconds since the first question.

    Returns:
        None where the events do not tell.
    """
    traffic = traffic_of(done)
    if not traffic:
        return None
    time = time_scale(done, others)
    unit, its_bytes = unit_of(value.high)
    shown = Scale(0, value.high / its_bytes)
    drawn = traffic if len(traffic) <= DOTS_UP_TO else _highest(traffic)
    received = [(time.percent(one.time), value.percent(one.received)) for one in drawn]
    busiest = [(time.percent(one.time), value.percent(one.busiest)) for one in drawn]
    parts = [rule(tick.percent, "grid") for tick in shown.ticks(4)]
    if len(traffic) <= DOTS_UP_TO:
        parts += [stems(received, "stem"), dots(busiest, "dot")]
    else:
        parts += [polyline(received, "received"), polyline(busiest, "busiest")]
    return Chart(
        Markup("").join(parts), _described(traffic), time.ticks(5), shown.ticks(4),
        "seconds since the first question", f"{unit} received",
    )  # fmt: skip


def _highest(traffic: Sequence[Traffic]) -> list[Traffic]:
    """Of some that follow each other, the most: no peak is lost, and the page stays small."""
    together = -(-len(traffic) // DOTS_UP_TO)
    groups = [traffic[start : start + together] for start in range(0, len(traffic), together)]
    return [
        Traffic(group[0].time, max(x.received for x in group), max(x.busiest for x in group))
        for group in groups
    ]


def _described(traffic: Sequence[Traffic]) -> str:
    every = [one.received for one in traffic]
    return (
        f"All ranks received {size(sum(every))}; in one rearrangement {size(median(every))} "
        f"(median), {size(max(every))} at most, of which the busiest rank got up to "
        f"{size(max(one.busiest for one in traffic))}."
    )
