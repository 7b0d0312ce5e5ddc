# SPDX-License-Identifier: Apache-2.0
"""What a benchmark measured, and where: as a table, as JSON, as a plot."""

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.bench.other_work import Load
from vllm_eplb_plugin.processor import processor_name
from vllm_eplb_plugin.releases import installed_distribution

SCHEMA_VERSION = 1


class BenchError(RuntimeError):
    """A benchmark cannot be run, or its two sides do not do the same."""


@dataclass(frozen=True)
class Row:
    """A row is one thing, measured for vLLM's own code and for the plugin's."""

    shape: str
    what: str
    stock: dict[str, Any]
    """`Times.summary`, or ``bytes``."""
    plugin: dict[str, Any]
    more_us: dict[str, float] | None = None
    """`timing.difference`, where it says more than a ratio."""
    threads_us: float | None = None
    """Processor time of the plugin's threads in a second, which the model's thread may wait for."""

    @property
    def ratio(self) -> float:
        """The plugin takes this many times less, of the host's time or of bytes."""
        return _headline(self.stock) / _headline(self.plugin)


def _headline(measured: dict[str, Any]) -> float:
    value = measured["bytes"] if "bytes" in measured else measured["host_us"]["median"]
    return float(value)


@dataclass(frozen=True)
class Result:
    """A result holds all rows of one run."""

    command: str
    device: str
    rounds: int
    rows: list[Row]
    load_before: Load | None
    """Of the machine."""
    machine: dict[str, Any] = field(default_factory=lambda: _machine())

    def write_json(self, file: Path, **more: Any) -> None:
        """Write everything that was measured to a file, and what else there is to say."""
        written = {"schema": SCHEMA_VERSION, **asdict(self), **more}
        file.write_text(json.dumps(written, indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print a table: medians, in brackets what 5 and 95 of 100 calls stayed below.

        On an accelerator there are two times: for how long the host was held, and until the
        device was done.
        """
        on_host = self.device == "cpu"
        unit = "ms" if all(row.more_us is None for row in self.rows) else "µs"
        table = Table(title=f"vllm-eplb bench {self.command}, {self.device}", title_justify="left")
        headings = ["vLLM", "plugin", "times less" if unit == "ms" else "plugin - vLLM"]
        for name in ["", "", *headings, *([] if on_host else ["vLLM, done", "plugin, done"])]:
            table.add_column(name, justify="right" if name else "left")
        with_threads = any(row.threads_us is not None for row in self.rows)
        if with_threads:
            table.add_column("its threads, a second", justify="right")
        for row in self.rows:
            cells = [_cell(side, "host_us", unit) for side in (row.stock, row.plugin)]
            cells.append(f"{row.ratio:.0f}" if row.more_us is None else _spread(row.more_us, unit))
            if not on_host:
                cells += [_cell(side, "done_us", unit) for side in (row.stock, row.plugin)]
            if with_threads:
                cells.append("" if row.threads_us is None else f"{row.threads_us:.0f} µs")
            table.add_row(row.shape, row.what, *cells)
        console.print(table)
        distribution = installed_distribution()
        console.print(
            f"host time, medians of {self.rounds} calls in turns; "
            f"{' '.join(reversed(distribution or ('', '')))}, {self.machine['processor']}"
        )

    def write_plot(self, file: Path) -> None:
        """Draw the host's medians, 5 and 95 of 100, on a logarithmic scale; by matplotlib."""
        from matplotlib.figure import Figure

        rows = [row for row in self.rows if "host_us" in row.stock][::-1]
        figure = Figure(figsize=(9, 1.2 + 0.7 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for offset, side, color in ((0.18, "stock", "#b0413e"), (-0.18, "plugin", "#2f6f9f")):
            times = [getattr(row, side)["host_us"] for row in rows]
            medians = [time["median"] / 1000 for time in times]
            spread = [
                [(time["median"] - time["p5"]) / 1000 for time in times],
                [(time["p95"] - time["median"]) / 1000 for time in times],
            ]
            places = [place + offset for place in range(len(rows))]
            label = "vLLM" if side == "stock" else "plugin"
            axes.barh(places, medians, 0.34, xerr=spread, color=color, label=label, capsize=2)
            for place, median, time in zip(places, medians, times, strict=True):
                axes.text(time["p95"] / 1000 * 1.15, place, f"{median:.3g}", va="center")
        axes.set_yticks(range(len(rows)), [f"{row.shape}\n{row.what}" for row in rows])
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.set_xlabel("host time, ms (median; bars from 5 to 95 of 100 calls)")
        axes.set_title(f"vllm-eplb bench {self.command}, {self.device}", loc="left")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, dpi=120)


def _cell(measured: dict[str, Any], time: str, unit: str) -> str:
    if "bytes" in measured:
        return f"{measured['bytes'] / 1e6:.1f} MB" if time == "host_us" else ""
    return _spread(measured[time], unit)


def _spread(time: dict[str, float], unit: str) -> str:
    divisor, digits = (1000, 3) if unit == "ms" else (1, 2)
    low, median, high = (f"{time[name] / divisor:.{digits}f}" for name in ("p5", "median", "p95"))
    return f"{median} {unit} [{low} to {high}]"


def _machine() -> dict[str, Any]:
    import torch

    distribution = installed_distribution()
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": _version("numba"),
        "vllm": None if distribution is None else " ".join(distribution),
        "plugin": __version__,
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
