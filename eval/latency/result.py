# SPDX-License-Identifier: Apache-2.0
"""What was measured of each arm, and how it is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel
from rich.table import Table

from eval.latency.model import ModelShape
from eval.result import Machine, Versions

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
    rearrangements: int
    """That rank 0 said it began."""
    rearranging_steps: float
    """Share of the engine steps in which a rearrangement began or was under way."""
    state_manager: Distribution | None
    """For how long `EplbState.step` held the thread that runs the model, in these steps."""
    between_tokens: Distribution
    """Between two tokens of one completion."""
    slow: float
    """Share of these that are more than twice the median."""
    command: list[str]


class LatencyResult(BaseModel):
    """One run."""

    schema_version: Literal[1] = 1
    model: ModelShape
    streams: int
    tokens: int
    loopback: bool
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
        return table

    def conclusions(self) -> list[str]:
        """What the arms say when they are set beside each other."""
        off, stock, plugin = (self.arm(name) for name in ("off", "stock", "plugin"))
        lines = []
        if stock and plugin and stock.state_manager and plugin.state_manager:
            ratio = stock.state_manager.p99 / plugin.state_manager.p99
            lines.append(f"time inside EplbState.step, p99: {ratio:.1f} times less than vLLM's own")
        for arm in (stock, plugin):
            if off and arm:
                more = arm.between_tokens.p99 / off.between_tokens.p99 - 1
                lines.append(f"between tokens, p99, {arm.name} against off: {more:+.1%}")
        if self.loopback:
            lines.append(
                "In loopback, collectives over gloo slow every step, and hide part of what EPLB "
                "adds to the time between tokens."
            )
        return lines
