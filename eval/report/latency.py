# SPDX-License-Identifier: Apache-2.0
"""The figures of a latency run, as every report shows them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from eval.config.schema import BASELINE
from eval.judging.latency_rules import checks_weights
from eval.results.latency import Distribution, LatencyTimes
from eval.results.latency_of_schema_2 import LatencyResult
from eval.results.schema import ArmRun, Result

_CEILING = "balanced"
_COMPARED = (
    *(_CEILING, "stock-sync", "sync", "sync-incremental"),
    *("stock-async", "async", "async-incremental"),
)


class Column(NamedTuple):
    """One arm."""

    name: str
    began: int
    """Rearrangements, as vLLM's log tells."""
    times: LatencyTimes
    arm: ArmRun | None = None
    """None: of a schema that does not keep it."""
    checked: bool = False
    """It compared weights after every commit: its times are not measurements."""


class Row(NamedTuple):
    """One figure of all arms."""

    heading: str
    cells: Sequence[str]


class LatencyView(NamedTuple):
    """What was measured, whichever schema it was kept in."""

    columns: Sequence[Column]
    loopback: bool
    switching: bool = False
    """Whether completions were asked one after another, of domains that take turns."""

    def rows(self) -> Iterator[Row]:
        """The table; times are in milliseconds."""
        if self.switching:
            yield from self._of_switching()
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

    def _of_switching(self) -> Iterator[Row]:
        yield self._row("completions", lambda one: str(len(one.times.completions)))
        yield self._row("all of them", lambda one: f"{_run(one).seconds * 1e3:.0f}")
        yield self._row("times as long as off", self._times_off)
        yield self._row(
            "a rearrangement, mean by steps", lambda one: _ms(one.times.rearrangement_ms)
        )
        yield self._row("a rearrangement, median by events", _told_ms)
        yield self._row("rearrangements that moved experts", _told_moving)
        yield self._row("slots changed in one, mean", _slots_in_one)

    def _times_off(self, column: Column) -> str:
        times = self._longer_than_off(column)
        return "-" if times is None else f"{times:.3f}"

    def _longer_than_off(self, column: Column) -> float | None:
        """By the time of a token, as a limit of seconds may have left some arm fewer of them."""
        off = next((one for one in self.columns if one.name == BASELINE), None)
        if off is None or column.checked:
            return None
        before, after = (_run(one).tokens_per_second for one in (off, column))
        return before / after if before is not None and after is not None else None

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
        for name in _COMPARED:
            times = self._between_tokens(name)
            if off and times:
                yield f"between tokens, p99, {name} against off: {times.p99 / off.p99 - 1:+.1%}"
        if self.switching:
            yield from self._slower()
        if self._times(_CEILING):
            yield (
                f"In arm {_CEILING} tokens go to experts by chance, without EPLB: what balance "
                "could be worth here. Its answers mean nothing."
            )
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

    def _slower(self) -> Iterator[str]:
        for name in _COMPARED:
            column = next((one for one in self.columns if one.name == name), None)
            times = self._longer_than_off(column) if column else None
            if times is not None:
                yield f"all completions, {name} against off: {times:.3f} times as long"
        if any(one.checked for one in self.columns):
            yield "Arms -checked compared weights after every commit: their times are no figures."

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
        Column(
            arm.name,
            arm.logged_rearrangements,
            arm.latency,
            arm,
            checks_weights(result.config, arm.name),
        )
        for arm in result.arms
        if arm.latency is not None
    ]
    asked = result.latency
    if asked is None:
        return LatencyView(columns, loopback=False)
    return LatencyView(columns, asked.loopback, asked.load != "steady")


def _state_manager(times: LatencyTimes) -> Distribution | None:
    return times.state_manager


def _between_tokens(times: LatencyTimes) -> Distribution | None:
    return times.between_tokens


def _run(column: Column) -> ArmRun:
    assert column.arm is not None, "only runs that keep it are of a load that switches"
    return column.arm


def _told_ms(column: Column) -> str:
    seconds = _run(column).usual_seconds
    return _ms(None if seconds is None else seconds * 1e3)


def _told_moving(column: Column) -> str:
    """Of vLLM's own nothing tells."""
    run = _run(column)
    return str(run.rearrangements) if run.rearrangements_started or run.ended else "-"


def _slots_in_one(column: Column) -> str:
    run = _run(column)
    if not run.rearrangements:
        return "-"
    return f"{sum(run.slots_changed) / run.rearrangements:.1f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _whole(value: int | None) -> str:
    return "-" if value is None else str(value)
