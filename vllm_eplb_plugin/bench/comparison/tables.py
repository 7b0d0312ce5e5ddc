# SPDX-License-Identifier: Apache-2.0
"""Rows as tables for people."""

from collections.abc import Iterable
from itertools import groupby

from rich.table import Table

from vllm_eplb_plugin.bench.comparison.rows import PolicyRow
from vllm_eplb_plugin.bench.comparison.schedules import ScheduleRow
from vllm_eplb_plugin.bench.comparison.windows import BALANCED
from vllm_eplb_plugin.bench.options import PARTS

EXPLANATION = (
    "now, next: balancedness on the window that was planned from, and on the one that is served; "
    "experts: received from other ranks, of one plan; less: times fewer than default; other "
    "nodes: of them from there; busiest: received by the rank with most; "
    f"until {BALANCED}: windows below it after a change of domain, which every run is given at its "
    "end, whatever its load, planned after each, -: never reached in some run; "
    "ms: processor time of a plan, median"
)

SCHEDULE_EXPLANATION = (
    f"every, from: short windows between plans, and planned from; {PARTS} are one window of bench "
    "plan; plans (triggered) and experts received are of as many; "
    f"until {BALANCED}: short windows below it after a change of domain, mean and most; never: "
    "the next change came before; -: reached after none"
)


def policy_tables(rows: Iterable[PolicyRow]) -> Iterable[Table]:
    """One for each load of each shape."""
    for (shape, ranks, load), group in groupby(rows, lambda row: (row.shape, row.ranks, row.load)):
        yield _policies(f"{shape}, {ranks} ranks, {load}", list(group))


def _policies(title: str, rows: list[PolicyRow]) -> Table:
    columns = ("now", "next", "experts", "less", "GB", "other nodes", "busiest", "layers", "alone")
    table = Table("policy", title=title, title_justify="left")
    for column in (*columns, f"until {BALANCED}", "ms"):
        table.add_column(column, justify="right")
    defaults = [row.received for row in rows if row.policy == "default"]
    for row in rows:
        less = f"{defaults[0] / row.received:.1f}" if defaults and row.received else "-"
        table.add_row(
            row.policy,
            f"{row.now:.4f}",
            f"{row.next:.4f}",
            f"{row.received:.0f}",
            less,
            f"{row.bytes_received / 1e9:.1f}",
            f"{row.from_other_nodes:.0f}",
            f"{row.busiest:.1f}",
            f"{row.layers:.0f}",
            f"{row.on_one_rank:.1f}",
            _or_never(row.windows_until_balanced),
            f"{row.plan_ms:.2f}",
        )
    return table


def schedule_tables(rows: Iterable[ScheduleRow]) -> Iterable[Table]:
    """One for each load of each shape."""
    for (shape, ranks, load), group in groupby(rows, lambda row: (row.shape, row.ranks, row.load)):
        table = Table("policy", title=f"{shape}, {ranks} ranks, {load}", title_justify="left")
        for column in ("every", "from", "trigger", "served", "experts", "plans"):
            table.add_column(column, justify="right")
        table.add_column(f"until {BALANCED}", justify="right")
        for row in group:
            until = _or_never(row.until_balanced)
            until += "" if row.slowest is None else f", {row.slowest}"
            until += f", never {row.never} of {row.changes}" if row.never else ""
            table.add_row(
                row.policy,
                str(row.every),
                str(row.recorded),
                _trigger(row),
                f"{row.served:.4f}",
                f"{row.received:.0f}",
                f"{row.plans:.2f} ({row.triggered:.2f})",
                until,
            )
        yield table


def _trigger(row: ScheduleRow) -> str:
    below = [] if row.below is None else [f"< {row.below:g}"]
    changed = [] if row.changed is None else [f"changed {row.changed:g}"]
    return ", ".join((*below, *changed)) or "-"


def _or_never(windows: float | None) -> str:
    return "-" if windows is None else f"{windows:.2f}"
