# SPDX-License-Identifier: Apache-2.0
"""The figures of a latency run, as every report shows them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from eval.results.latency import Distribution, LatencyTimes
from eval.results.latency_of_schema_2 import LatencyResult
from eval.results.schema import Result


class Column(NamedTuple):
    """One arm."""

    name: str
    began: int
    """Rearrangements, as vLLM's log tells."""
    times: LatencyTimes


class Row(NamedTuple):
    """One figure of all arms."""

    heading: str
    cells: Sequence[str]


class LatencyView(NamedTuple):
    """What was measured, whichever schema it was kept in."""

    columns: Sequence[Column]
    loopback: bool

    def rows(self) -> Iterator[Row]:
        """The table; times are in milliseconds."""
        for heading, part in (
            ("EplbState.step", _state_manager),
            ("between tokens", _between_tokens),
        ):
            found = [part(one.times) for one in self.columns]
            for value in ("p50", "p99", "max"):
                cells = ["-" if one is None else f"{getattr(one, value):.3f}" for one in found]
                yield Row(f"{heading}, {value}", cells)
        yield self._row("slower than twice the median", lambda one: f"{one.times.slow:.2%}")
        yield self._row("rearrangements begun", lambda one: str(one.began))
        yield self._row("steps rearranging", lambda one: f"{one.times.rearranging_steps:.0%}")
        if any(one.times.gpu_memory_mib for one in self.columns):
            yield self._row("GPU memory, MiB", lambda one: _whole(one.times.gpu_memory_mib))

    def conclusions(self) -> Iterator[str]:
        """What the arms say when they are set beside each other."""
        stall, stock_stall = self._state_manager("sync"), self._state_manager("stock-sync")
        if stall and stock_stall:
            yield (
                f"stall of a sync rearrangement, p50: {stall.p50:.1f} ms, vLLM's own "
                f"{stock_stall.p50:.1f} ms"
            )
        held, stock_held = self._state_manager("async"), self._state_manager("stock-async")
        if held and stock_held:
            yield (
                f"time inside EplbState.step, async, p99: {stock_held.p99 / held.p99:.1f} times "
                "less than vLLM's own"
            )
        off = self._between_tokens("off")
        for name in ("stock-sync", "sync", "stock-async", "async"):
            times = self._between_tokens(name)
            if off and times:
                yield f"between tokens, p99, {name} against off: {times.p99 / off.p99 - 1:+.1%}"
        if stall or stock_stall:
            yield (
                "In sync mode all of a rearrangement happens inside one step: the time inside "
                "EplbState.step is for how long it stalls the model, and every completion."
            )
        if self.loopback:
            yield (
                "In loopback, collectives over gloo slow every step, and hide part of what EPLB "
                "adds to the time between tokens."
            )

    def _row(self, heading: str, cell: Callable[[Column], str]) -> Row:
        return Row(heading, [cell(one) for one in self.columns])

    def _times(self, name: str) -> LatencyTimes | None:
        return next((one.times for one in self.columns if one.name == name), None)

    def _state_manager(self, name: str) -> Distribution | None:
        times = self._times(name)
        return _state_manager(times) if times else None

    def _between_tokens(self, name: str) -> Distribution | None:
        times = self._times(name)
        return _between_tokens(times) if times else None


def latency_view(result: Result | LatencyResult) -> LatencyView:
    """Of a run that is kept today, or of one from before."""
    if isinstance(result, LatencyResult):
        columns = [Column(arm.name, arm.rearrangements, arm) for arm in result.arms]
        return LatencyView(columns, result.loopback)
    columns = [
        Column(arm.name, arm.logged_rearrangements, arm.latency)
        for arm in result.arms
        if arm.latency is not None
    ]
    return LatencyView(columns, result.latency is not None and result.latency.loopback)


def _state_manager(times: LatencyTimes) -> Distribution | None:
    return times.state_manager


def _between_tokens(times: LatencyTimes) -> Distribution | None:
    return times.between_tokens


def _whole(value: int | None) -> str:
    return "-" if value is None else str(value)
