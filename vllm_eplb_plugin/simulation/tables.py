# SPDX-License-Identifier: Apache-2.0
"""Combinations as tables for a terminal of 80 columns."""

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from vllm_eplb_plugin.simulation.changes import BALANCED
from vllm_eplb_plugin.simulation.mixing import mixing_of
from vllm_eplb_plugin.simulation.result import Simulated
from vllm_eplb_plugin.simulation.summary import Row, labels_of

Cell = Callable[[Row], str]

EXPLANATION = (
    "Balancedness: mean over max rank load, on the windows that follow the first plan. "
    "worst: mean of the worst 5 %. "
    f"until {BALANCED}: windows below it after a change of domain, mean and most; "
    "-: never, or no change. each: GB of one rearrangement; busiest: of the rank that receives "
    "most in one. link s: what busiest ranks take in all. "
    "ms: processor time of a plan, median. kept: GB of redundant experts on a rank."
)

_SETTINGS: dict[str, Cell] = {
    "redundant": lambda row: str(row.redundant),
    "kept": lambda row: _gigabytes(row.redundant_bytes),
    "ranks": lambda row: str(row.ranks),
    "nodes": lambda row: str(row.nodes),
    "every": lambda row: str(row.interval),
    "from": lambda row: str(row.window),
}


def tables(simulated: Simulated) -> Iterator[Table]:
    """How well it was served, and what that took."""
    rows = simulated.rows
    yield _table(rows, _varying(rows) | _BALANCE)
    yield _table(rows, _COSTS | (_LINK if any(row.link_s is not None for row in rows) else {}))


def headline(simulated: Simulated) -> str:
    """What was played over."""
    shape, windows = simulated.recording.served.shape, simulated.recording.windows
    clusters = {(row.redundant, row.ranks, row.nodes) for row in simulated.rows}
    where = f"{shape.layers} layers of {shape.experts} experts"
    if len(clusters) == 1:
        [(redundant, ranks, nodes)] = clusters
        kept = _gigabytes(simulated.rows[0].redundant_bytes)
        where += f"+{redundant} (on a rank {kept} GB), {ranks} ranks"
        where += f" on {nodes} node{'s' if nodes > 1 else ''}"
    changes = len(simulated.changes)
    return (
        f"{simulated.rows[0].recording}: {where}; {len(windows)} windows, "
        f"{changes or 'no'} change{'' if changes == 1 else 's'} of domain"
    )


def notes(simulated: Simulated) -> list[str]:
    """What numbered policies stand for, and what async mode served otherwise."""
    labels = labels_of(simulated.rows)
    named = [f"{label}: {policy}" for policy, label in labels.items() if label != policy]
    mixing = mixing_of(simulated.recording)
    if mixing is None:
        return named
    return [
        *named,
        f"As recorded, rearrangements were under way {mixing.share:.0%} of the time. If that was "
        f"in async mode, its windows were served with {mixing.at_least:.3f} to "
        f"{mixing.at_once:.3f}.",
    ]


def _varying(rows: Sequence[Row]) -> dict[str, Cell]:
    return {name: cell for name, cell in _SETTINGS.items() if len({cell(row) for row in rows}) > 1}


def _table(rows: Sequence[Row], columns: dict[str, Cell]) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("policy", min_width=11, max_width=20, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    labels = labels_of(rows)
    for number, row in enumerate(rows, 1):
        cells = (cell(row) for cell in columns.values())
        table.add_row(str(number), escape(labels[row.policy]), *cells)
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _gigabytes(number: float | None) -> str:
    return "-" if number is None else f"{number / 1e9:.4g}"


def _until(row: Row) -> str:
    if row.until_balanced is None:
        return "-"
    never = f", {row.never} never" if row.never else ""
    return f"{row.until_balanced:.1f}, {row.slowest}{never}"


_BALANCE: dict[str, Cell] = {
    "mean": lambda row: _share(row.mean),
    "worst": lambda row: _share(row.worst),
    "lowest": lambda row: _share(row.lowest),
    f"until {BALANCED}": _until,
}
_COSTS: dict[str, Cell] = {
    "plans": lambda row: str(row.plans),
    "experts": lambda row: str(row.experts),
    "GB": lambda row: _gigabytes(row.bytes),
    "each": lambda row: _gigabytes(row.bytes_per_plan),
    "busiest": lambda row: _gigabytes(row.busiest_bytes),
    "ms": lambda row: "-" if row.plan_ms is None else f"{row.plan_ms:.1f}",
}
_LINK: dict[str, Cell] = {
    "link s": lambda row: "-" if row.link_s is None else f"{row.link_s:.3g}",
}
