# SPDX-License-Identifier: Apache-2.0
"""The figures of a throughput run, as every report shows them."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median
from typing import NamedTuple

from eval.config.schema import BASELINE
from eval.judging.ratios import Estimate, estimate, faster_than_off, ratio_of
from eval.judging.throughput_rules import BALANCED, LEAST_SHARE, WORTH
from eval.report.sizes import size
from eval.results.schema import Result
from eval.results.throughput import Measurement, Percentiles, ThroughputWorkload

_BUSY = 0.7
"""Of the time: above it, tokens may have waited for who counts them."""


class TrafficColumn(NamedTuple):
    """One arm."""

    name: str
    found: Sequence[Measurement]
    """Of this traffic."""
    times_off: Estimate | None
    """Tokens a second, over those of ``off``."""


class TrafficRow(NamedTuple):
    """One figure of all arms."""

    heading: str
    cells: Sequence[str]


class TrafficTable(NamedTuple):
    """One traffic."""

    name: str
    columns: Sequence[TrafficColumn]

    def rows(self) -> Iterator[TrafficRow]:
        """Times are in milliseconds, medians over rounds."""
        yield self._row("tokens a second", _rate(lambda one: one.tokens_per_second))
        yield self._row("read", _rate(lambda one: one.prompt_tokens / one.seconds))
        yield self._row("generated", _rate(lambda one: one.generated_tokens / one.seconds))
        for heading, times in ((f"times {BASELINE}", _mean), ("95 % interval", _interval)):
            yield TrafficRow(heading, [times(column.times_off) for column in self.columns])
        yield self._row("first token, p50", _ms(lambda one: one.first_token, "p50"))
        yield self._row("first token, p99", _ms(lambda one: one.first_token, "p99"))
        yield self._row("between tokens, p50", _ms(lambda one: one.between_tokens, "p50"))
        yield self._row("between tokens, p99", _ms(lambda one: one.between_tokens, "p99"))
        yield self._row(
            "rearrangements begun",
            lambda found: str(sum(one.logged_rearrangements for one in found)),
        )
        yield self._row("balancedness as served", _balancedness)
        yield self._row("experts received", _sum(lambda one: one.experts_received, str))
        yield self._row("weights received", _sum(lambda one: one.bytes_received, size))

    def _row(self, heading: str, cell: Callable[[Sequence[Measurement]], str]) -> TrafficRow:
        return TrafficRow(heading, [cell(column.found) for column in self.columns])


def throughput_tables(result: Result) -> list[TrafficTable]:
    """One for each traffic that was measured; none of other kinds of runs."""
    if result.throughput is None or not result.arms:
        return []
    return [_table(result, traffic.name) for traffic in result.throughput.traffics]


def throughput_conclusions(result: Result) -> Iterator[str]:
    """What the arms say when they are set beside each other, and what limits that."""
    asked = result.throughput
    if asked is None:
        return
    for table in throughput_tables(result):
        ceiling = next((one.times_off for one in table.columns if one.name == BALANCED), None)
        if ceiling is not None and ceiling.enough:
            told = f"{table.name}: perfect balance is worth {ceiling.mean - 1:+.1%}"
            asks = f"at least {LEAST_SHARE:.0%} of it is asked for"
            little = f"less than {WORTH - 1:.0%}, so no share of it is asked for"
            yield f"{told}: {asks if ceiling.mean >= WORTH else little}"
    yield from _limits(asked, [arm.name for arm in result.arms])
    found = [one for arm in result.arms for one in arm.throughput]
    yield from _busy("The harness itself", [one.asking for one in found])
    yield from _busy("A server's front end", [one.front_end or 0.0 for one in found])


def _busy(who: str, shares: Sequence[float]) -> Iterator[str]:
    most = max(shares, default=0.0)
    if most > _BUSY:
        yield (
            f"{who} kept up to {most:.2f} cores busy, of one that Python can mostly use: part of "
            "what was measured is its own. Ask for fewer streams."
        )


def _limits(asked: ThroughputWorkload, arms: Sequence[str]) -> Iterator[str]:
    if asked.repeats > 1:
        yield f"Intervals are of Student's t over {asked.repeats} rounds, 95 %."
    yield (
        "Times are in milliseconds, medians over rounds. Moves are those of which the plugin's "
        "events tell: of vLLM's own EPLB nothing does."
    )
    if asked.servers_at_once == 1 and len(arms) > 1:
        yield (
            "One arm was measured after the other: what changed on the machine meanwhile is in "
            "the difference, and no interval tells of it."
        )
    if BALANCED in arms:
        yield f"In arm {BALANCED} tokens go to experts by chance: its answers mean nothing."
    if asked.recorded_by is not None:
        yield (
            f"Arm warm began by what arm {asked.recorded_by} recorded of all these traffics, and "
            "stayed there."
        )
    if asked.loopback:
        yield (
            "In loopback ranks share what they run on, and collectives over gloo take most of a "
            "step: these figures say nothing of several GPUs."
        )


def _table(result: Result, traffic: str) -> TrafficTable:
    columns = []
    for arm in result.arms:
        found = [one for one in arm.throughput if one.traffic == traffic]
        logs = faster_than_off(result.arms, arm.name, traffic)
        times = None if arm.name == BASELINE else ratio_of(list(logs.values()))
        columns.append(TrafficColumn(arm.name, found, times))
    return TrafficTable(traffic, columns)


def _rate(of: Callable[[Measurement], float]) -> Callable[[Sequence[Measurement]], str]:
    def cell(found: Sequence[Measurement]) -> str:
        rate = estimate([of(one) for one in found])
        if rate is None:
            return "-"
        around = "" if rate.repeats == 1 else f" ± {rate.high - rate.mean:,.0f}"
        return f"{rate.mean:,.0f}{around}"

    return cell


def _mean(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.mean:.3f}"


def _interval(found: Estimate | None) -> str:
    return "-" if found is None or found.repeats == 1 else f"{found.low:.3f} to {found.high:.3f}"


def _ms(
    of: Callable[[Measurement], Percentiles | None], value: str
) -> Callable[[Sequence[Measurement]], str]:
    def cell(found: Sequence[Measurement]) -> str:
        times = [getattr(one, value) for one in map(of, found) if one is not None]
        return f"{median(times):.1f}" if times else "-"

    return cell


def _balancedness(found: Sequence[Measurement]) -> str:
    told = [one.balancedness for one in found if one.balancedness is not None]
    return f"{fmean(told):.3f}" if told else "-"


def _sum(
    of: Callable[[Measurement], int | None], show: Callable[[int], str]
) -> Callable[[Sequence[Measurement]], str]:
    def cell(found: Sequence[Measurement]) -> str:
        told = [one for one in map(of, found) if one is not None]
        return show(sum(told)) if told else "-"

    return cell
