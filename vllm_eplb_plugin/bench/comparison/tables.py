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
    "experts, GB: received from other ranks, of one plan; less: times fewer than default; other "
    "nodes: of them from there; busiest: received by the rank with most; layers: that change; "
    "alone: experts of a layer that are on one rank only; "
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


def policy_tables(rows: Iterable[PolicyRow], narrow: bool) -> Iterable[Table]:
    """One for each load of each shape; two, of balance and of moves, where one is too wide."""
    for (shape, ranks, load), group in groupby(rows, lambda row: (row.shape, row.ranks, row.load)):
        cells = _cells(list(group))
        parts = (_BALANCE, _MOVES) if narrow else (tuple(cells[0])[1:],)
        for number, part in enumerate(parts):
            title = "" if number else f"{shape}, {ranks} ranks, {load}"
            table = Table(title=title, title_justify="left")
            table.add_column("policy", overflow="fold")
            for column in part:
                table.add_column(column, justify="right", no_wrap=True)
            for row in cells:
                table.add_row(row["policy"], *(row[column] for column in part))
            yield table


_UNTIL = f"until {BALANCED}"
_BALANCE = ("now", "next", _UNTIL, "alone", "ms")
_MOVES = ("experts", "less", "GB", "other nodes", "busiest", "layers")


def _cells(rows: list[PolicyRow]) -> list[dict[str, str]]:
    """What a table shows of each policy, by column."""
    defaults = [row.received for row in rows if row.policy == "default"]
    return [
        {
            "policy": row.policy,
            "now": f"{row.now:.4f}",
            "next": f"{row.next:.4f}",
            "experts": f"{row.received:.0f}",
            "less": f"{defaults[0] / row.received:.1f}" if defaults and row.received else "-",
            "GB": f"{row.bytes_received / 1e9:.1f}",
            "other nodes": f"{row.from_other_nodes:.0f}",
            "busiest": f"{row.busiest:.1f}",
            "layers": f"{row.layers:.0f}",
            "alone": f"{row.on_one_rank:.1f}",
            _UNTIL: _or_never(row.windows_until_balanced),
            "ms": f"{row.plan_ms:.2f}",
        }
        for row in rows
    ]


def schedule_tables(rows: Iterable[ScheduleRow]) -> Iterable[Table]:
    """One for each load of each shape."""
    for (shape, ranks, load), group in groupby(rows, lambda row: (row.shape, row.ranks, row.load)):
        table = Table("policy", title=f"{shape}, {ranks} ranks, {load}", title_justify="left")
        for column in ("every", "from", "trigger", "served", "experts", "plans"):
            table.add_column(column, justify="right")
        table.add_column(_UNTIL, justify="right")
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
