# SPDX-License-Identifier: Apache-2.0
"""What was measured of each arm, and how it is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel
from rich.table import Table

from eval.commands.latency_model import ModelShape
from eval.results.schema import Machine, Versions

_PERCENTS = np.append(np.arange(0, 99, 1.0), np.arange(99, 100.01, 0.05)).round(2)


class Distribution(BaseModel):
    """Of times in milliseconds."""

    count: int
    p50: float
    p99: float
    max: float
    curve: list[tuple[float, float]]
    """Percent of the times, and what they stay below."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Distribution | None":
        """None of none."""
        if not seconds:
            return None
        milliseconds = np.array(seconds) * 1e3
        below = np.percentile(milliseconds, _PERCENTS).round(4)
        p50, p99, most = np.percentile(milliseconds, [50, 99, 100]).round(4)
        curve = list(zip(_PERCENTS.tolist(), below.tolist(), strict=True))
        return cls(count=len(milliseconds), p50=p50, p99=p99, max=most, curve=curve)


class ArmLatency(BaseModel):
    """One server, measured while all completions were streamed."""

    name: str
    start_seconds: float
    """Until it was found ready; of servers started together, after those before it."""
    rearrangements: int
    """That rank 0 said it began."""
    rearranging_steps: float
    """Share of the engine steps in which a rearrangement began or was under way."""
    state_manager: Distribution | None
    """For how long `EplbState.step` held the thread that runs the model, in these steps: in sync
    mode, the stall of a whole rearrangement."""
    between_tokens: Distribution
    """Between two tokens of one completion."""
    slow: float
    """Share of these that are more than twice the median."""
    gpu_memory_mib: int | None
    """In use at the end by the server, on all its GPUs together; None: not known."""
    command: list[str]


class LatencyResult(BaseModel):
    """One run."""

    schema_version: Literal[2] = 2
    model: ModelShape
    streams: int
    tokens: int
    loopback: bool
    gpus: int
    """That the servers used; 0: they ran on the CPU."""
    servers_at_once: int
    """Started together; each was measured while the others had nothing to do."""
    machine: Machine
    versions: Versions
    arms: list[ArmLatency]

    def arm(self, name: str) -> ArmLatency | None:
        """One of them."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def write(self, file: Path) -> None:
        """Everything, as JSON."""
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """One column an arm."""
        table = Table("ms")
        for arm in self.arms:
            table.add_column(arm.name, justify="right")
        for heading, part in (
            ("EplbState.step", "state_manager"),
            ("between tokens", "between_tokens"),
        ):
            for value in ("p50", "p99", "max"):
                found = (getattr(arm, part) for arm in self.arms)
                cells = ("-" if one is None else f"{getattr(one, value):.3f}" for one in found)
                table.add_row(f"{heading}, {value}", *cells)
        table.add_row("slower than twice the median", *(f"{arm.slow:.2%}" for arm in self.arms))
        table.add_row("rearrangements begun", *(str(arm.rearrangements) for arm in self.arms))
        table.add_row("steps rearranging", *(f"{arm.rearranging_steps:.0%}" for arm in self.arms))
        if any(arm.gpu_memory_mib for arm in self.arms):
            memory = (arm.gpu_memory_mib for arm in self.arms)
            table.add_row("GPU memory, MiB", *("-" if one is None else str(one) for one in memory))
        return table

    def conclusions(self) -> list[str]:
        """What the arms say when they are set beside each other."""
        names = ("off", "stock-sync", "sync", "stock-async", "async")
        off, stock_sync, sync, stock_async, async_ = (self.arm(name) for name in names)
        lines = []
        if stock_sync and sync and stock_sync.state_manager and sync.state_manager:
            stall, stock = sync.state_manager.p50, stock_sync.state_manager.p50
            lines.append(
                f"stall of a sync rearrangement, p50: {stall:.1f} ms, vLLM's own {stock:.1f} ms"
            )
        if stock_async and async_ and stock_async.state_manager and async_.state_manager:
            ratio = stock_async.state_manager.p99 / async_.state_manager.p99
            lines.append(
                f"time inside EplbState.step, async, p99: {ratio:.1f} times less than vLLM's own"
            )
        for arm in (stock_sync, sync, stock_async, async_):
            if off and arm:
                more = arm.between_tokens.p99 / off.between_tokens.p99 - 1
                lines.append(f"between tokens, p99, {arm.name} against off: {more:+.1%}")
        if any(arm and arm.state_manager for arm in (stock_sync, sync)):
            lines.append(
                "In sync mode all of a rearrangement happens inside one step: the time inside "
                "EplbState.step is for how long it stalls the model, and every completion."
            )
        if self.loopback:
            lines.append(
                "In loopback, collectives over gloo slow every step, and hide part of what EPLB "
                "adds to the time between tokens."
            )
        return lines
