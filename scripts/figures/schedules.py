# SPDX-License-Identifier: Apache-2.0
"""How often to plan, by `vllm-eplb bench schedule`."""

from collections.abc import Iterator
from typing import Any

from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import plain, tenths, thousandths, whole

PAGE = "docs/benchmarks/plans.md"
FOLDER = "docs/benchmarks/plans"
OFTEN = ("schedule-default", "schedule")
DOMAINS = ("domains", "domains-below", "domains-changed")


def claims(kept: Kept) -> Iterator[Claim]:
    """Two tables of docs/benchmarks/plans.md."""
    for names, written in ((OFTEN, often_row), (DOMAINS, domains_row)):
        for file in (f"{FOLDER}/{name}.json" for name in names):
            for one in kept.read(file)["schedules"]:
                yield Claim(PAGE, file, written(one))


def often_row(one: dict[str, Any]) -> str:
    """Planned every so many parts of a window."""
    cells = (str(one["every"]), str(one["recorded"]), *reached(one))
    return row(one["policy"], *cells)


def domains_row(one: dict[str, Any]) -> str:
    """With a trigger, or without."""
    return row(one["policy"], trigger(one), *reached(one), until_balanced(one))


def reached(one: dict[str, Any]) -> tuple[str, str]:
    """Balancedness as served, and experts received."""
    return thousandths(one["served"]), plain(whole(one["received"]))


def trigger(one: dict[str, Any]) -> str:
    """What makes it plan between times."""
    named = (f"{name} {one[name]}" for name in ("below", "changed") if one[name] is not None)
    return ", ".join(named) or "-"


def until_balanced(one: dict[str, Any]) -> str:
    """Windows from a change until enough is served, mean and most, and how often never."""
    said = f"{tenths(one['until_balanced'])}, {one['slowest']}"
    return f"{said}, never {one['never']} of {one['changes']}" if one["never"] else said
