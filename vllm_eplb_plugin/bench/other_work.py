# SPDX-License-Identifier: Apache-2.0
"""Whether a machine had something else to do before it measures, so that readers know."""

import os
from dataclasses import dataclass
from pathlib import Path

import typer

_NOTABLE = 0.25
"""Share of a machine's cores from which on other work is warned of."""


@dataclass(frozen=True)
class Load:
    """The load of the machine before anything was measured."""

    average: tuple[float, float, float]
    """Threads that ran, wanted to or waited for a disk, on average over 1, 5 and 15 minutes."""
    running: int
    """Threads that did so at that moment, without the one that asked."""
    cores: int

    @property
    def lines(self) -> list[str]:
        """The load for a person, with a warning where times will not be those of the machine."""
        averages = ", ".join(f"{one:.2f}" for one in self.average)
        told = [
            f"before: load average {averages} on {self.cores} cores, {self.running} threads running"
        ]
        if (share := self.average[0] / self.cores) >= _NOTABLE:
            told.append(
                f"warning: in the last minute this machine had work for {share:.0%} of its cores: "
                "unless that was a command that has ended, times are longer and scatter more than "
                "on an idle one"
            )
        return told


def tell_load() -> Load | None:
    """Print the load of the machine, before a benchmark adds its own; None: it cannot be read."""
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
        load = Load(os.getloadavg(), max(running - 1, 0), os.cpu_count() or 1)
    except OSError:
        typer.echo("before: this machine does not tell its load")
        return None
    for line in load.lines:
        typer.echo(line)
    return load
