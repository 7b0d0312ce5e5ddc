# SPDX-License-Identifier: Apache-2.0
"""A load that switches domains, by `python -m eval latency --load switching`."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import Form, digits, hundredths, tenths, whole

PAGE = "docs/benchmarks/README.md"
FILE = "docs/benchmarks/switching-h200.json"

SYNC = "v2-lite, sync, two GPUs"
ASYNC = "v2-lite, async, two GPUs"
WIDE = "wide, async, two GPUs"
FOUR = "v2-lite, four GPUs"

SYNC_ARMS = ("stock-sync", "sync", "sync-incremental")
ASYNC_ARMS = ("stock-async", "async", "async-incremental")

INTERVAL = 20
"""Steps from one rearrangement to the next."""
LITE_EXPERTS = 64
"""Of a layer of DeepSeek-V2-Lite, without redundant ones."""
DEFAULT_INTERVAL = 3000
"""vLLM's own."""


def claims(kept: Kept) -> Iterator[Claim]:
    """The tables of docs/benchmarks, and what is said of them."""
    report = kept.read(FILE)
    made = (*two_gpus(report), *four_gpus(report), *wide(report), *sentences(report))
    for text in made:
        yield Claim(PAGE, FILE, text)


def two_gpus(report: dict[str, Any]) -> Iterator[str]:
    """Sync on one pair of GPUs, async on the other."""
    halves = ((arms(report, SYNC), SYNC_ARMS), (arms(report, ASYNC), ASYNC_ARMS))
    long = ((f"1 ({seconds(half)})", *ratios(half, names)) for half, names in halves)
    yield row("all of them, times as long as off", *chain.from_iterable(long))
    (stock, *ours), asynchronous = (rearrangements_ms(half, names) for half, names in halves)
    yield row("a rearrangement, ms", "-", stock, *map(bold, ours), "-", *asynchronous)
    # How many rearrangements an async arm had, the file does not say: see `slots_in_one`.
    changed = (whole(slots_in_one(halves[0][0][name])) for name in SYNC_ARMS[1:])
    yield "| slots changed in it | - | - | " + " | ".join(changed) + " |"
    yield row(
        "GPU memory of both ranks, MiB",
        *(
            whole(half[name]["latency"]["gpu_memory_mib"])
            for half, names in halves
            for name in ("off", *names)
        ),
    )
    yield row(
        "between tokens, p50, p99, ms",
        *(between_tokens(half[name]) for half, names in halves for name in ("off", *names)),
    )


def four_gpus(report: dict[str, Any]) -> Iterator[str]:
    """All arms at once."""
    every = arms(report, FOUR)
    names = (*SYNC_ARMS, *ASYNC_ARMS)
    stock, *ours = rearrangements_ms(every, SYNC_ARMS)
    asynchronous = rearrangements_ms(every, ASYNC_ARMS)
    yield f"| four GPUs, {whole(every['off']['seconds'])} s an arm |"
    yield row("times as long as off", "1", *ratios(every, names))
    yield row("a rearrangement, ms", "-", stock, *map(bold, ours), *asynchronous)
    yield row(
        "between tokens, p50, p99, ms", *(between_tokens(every[name]) for name in ("off", *names))
    )


def wide(report: dict[str, Any]) -> Iterator[str]:
    """A model of many layers, async."""
    every = arms(report, WIDE)
    yield row("times as long as off", "1", *ratios(every, ASYNC_ARMS))
    yield row(
        "a rearrangement, s",
        *("-", *(tenths(rearrangement_ms(every[name]) / 1e3) for name in ASYNC_ARMS)),
    )
    yield row(
        "between tokens, p50, p99, ms",
        *(between_tokens(every[name]) for name in ("off", *ASYNC_ARMS)),
    )


def sentences(report: dict[str, Any]) -> Iterator[str]:
    """What stands below the tables."""
    sync, other = arms(report, SYNC), arms(report, ASYNC)
    yield (
        f"`off` alone took {seconds(sync)} on one pair of GPUs "
        f"and {tenths(other['off']['seconds'])} on the other"
    )
    ms = rearrangement_ms(sync["sync"])
    count = rearrangements(sync["sync"])
    share = count * ms / sync["sync"]["seconds"] / 10
    yield (
        f"{count} sync rearrangements of {tenths(ms)} ms take {whole(share)} % of the time of "
        f"200 completions at this interval, {DEFAULT_INTERVAL // INTERVAL} times more often than "
        "by default"
    )
    yield f"Half of the {tenths(rearrangement_ms(sync['sync-incremental']))} ms of `incremental`"


def arms(report: dict[str, Any], what: str) -> dict[str, Any]:
    """Those of one run, by name.

    Raises:
        LookupError: There is no such run.
    """
    for one in report["runs"]:
        if one["what"] == what:
            found: dict[str, Any] = one["arms"]
            return found
    raise LookupError(f"there is no run '{what}': measure it again, or drop the claim")


def times_as_long(every: dict[str, Any], name: str) -> float:
    """The time of a token, by that without EPLB."""
    off, other = (every[one]["tokens_per_second"] for one in ("off", name))
    return float(off / other)


def ratios(every: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Of several arms."""
    return (hundredths(times_as_long(every, name)) for name in names)


def seconds(every: dict[str, Any]) -> str:
    """For how long the arm without EPLB was asked."""
    return f"{tenths(every['off']['seconds'])} s"


def bold(text: str) -> str:
    """What a row is about."""
    return f"**{text}**"


def rearrangement_ms(arm: dict[str, Any]) -> float:
    """One rearrangement, mean."""
    mean: float = arm["latency"]["rearrangement_ms"]
    return mean


def rearrangements_ms(every: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """vLLM's own to a millisecond, the plugin's to a tenth."""
    stock, *ours = (rearrangement_ms(every[name]) for name in names)
    return iter((whole(stock), *map(tenths, ours)))


def rearrangements(arm: dict[str, Any]) -> int:
    """Those of a sync arm: of each, both ranks timed one step."""
    return int(arm["latency"]["state_manager"]["count"]) // 2


def slots_in_one(arm: dict[str, Any]) -> float:
    """Slots that a rearrangement of a sync arm changes, mean; an async one has several steps."""
    return float(sum(arm["slots_changed"])) / rearrangements(arm)


def share_of_slots(report: dict[str, Any], arm: dict[str, Any]) -> float:
    """The part of all slots that a rearrangement of a sync arm changes.

    Raises:
        LookupError: The command does not say how many slots there were.
    """
    command = next(one["command"] for one in report["runs"] if one["what"] == SYNC)
    found = re.search(r"--redundant (\d+)", command)
    if not found:
        raise LookupError(f"'{command}' names no redundant experts: say elsewhere how many")
    return slots_in_one(arm) / (len(arm["slots_changed"]) * (LITE_EXPERTS + int(found[1])))


def between_tokens(arm: dict[str, Any], form: Form = tenths) -> str:
    """Median and 99 of 100, in milliseconds."""
    times = arm["latency"]["between_tokens"]
    p99 = digits(2)(times["p99"]) if times["p99"] < 100 else whole(times["p99"])
    return f"{form(times['p50'])}, {p99}"
