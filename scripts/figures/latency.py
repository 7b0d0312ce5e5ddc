# SPDX-License-Identifier: Apache-2.0
"""Time inside the state manager and between tokens, by `python -m eval latency`."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from scripts.figures.claim import Claim, Kept, files, row
from scripts.figures.rounding import (
    Form,
    digits,
    hundredths,
    legible,
    mib_as_gib,
    plain,
    tenths,
    whole,
)

PAGE = "docs/benchmarks/README.md"
FOOTGUNS = "docs/footguns.md"
FOLDER = "docs/benchmarks"
CPU = f"{FOLDER}/itl-cpu.json"
WIDE = f"{FOLDER}/itl-h100x2.json"
LITE = f"{FOLDER}/itl-v2-lite-h100x2.json"
LITE_SYNC = f"{FOLDER}/itl-v2-lite-sync-h100x2.json"
ONE_GPU = f"{FOLDER}/itl-h200x1.json"
SWITCH_INTERVALS = (
    ("5", f"{FOLDER}/itl-h100x2-switch-5ms.json"),
    ("0.5", f"{FOLDER}/itl-h100x2-switch-0.5ms.json"),
)

STATE_MANAGER, BETWEEN_TOKENS = "state_manager", "between_tokens"
ASYNC = ("off", "stock-async", "async")
SYNC = ("off", "stock-sync", "sync")


def claims(kept: Kept) -> Iterator[Claim]:
    """Tables and sentences of docs/benchmarks."""
    yield shape(kept)
    yield from user_rows(kept)
    yield from lite_on_two(kept)
    yield from one_gpu(kept)
    for interval, file in SWITCH_INTERVALS:
        yield Claim(PAGE, file, switch_row(interval, kept.read(file)))
    long, short = (arm(kept.read(file), "async") for _, file in SWITCH_INTERVALS)
    yield Claim(
        FOOTGUNS,
        files(*(file for _, file in SWITCH_INTERVALS)),
        f"99 of 100 `EplbState.step` of a rearrangement end within "
        f"{tenths(long[STATE_MANAGER]['p99'])} ms instead of {tenths(short[STATE_MANAGER]['p99'])}",
    )
    lite, sync, wide = (kept.read(file) for file in (LITE, LITE_SYNC, WIDE))
    rearranging = arm(sync, "sync")
    steps = rearranging[STATE_MANAGER]["count"] // 2
    of_all = plain(whole(steps / rearranging["rearranging_steps"]))
    yield Claim(PAGE, LITE_SYNC, f"in {steps} of {of_all} steps")
    yield Claim(
        PAGE,
        files(LITE, WIDE),
        f"one every {hundredths(every(lite, 'async'))} s with the plugin, whose steps are shorter, "
        f"and one every {hundredths(every(lite, 'stock-async'))} s with vLLM's own; "
        f"with the wide model one every {tenths(every(wide, 'async'))} s "
        f"and one every {tenths(every(wide, 'stock-async'))} s",
    )


def lite_on_two(kept: Kept) -> Iterator[Claim]:
    """DeepSeek-V2-Lite's sizes, async and sync."""
    halves = ((kept.read(LITE), ASYNC, legible), (kept.read(LITE_SYNC), SYNC, digits(2)))
    both = files(LITE, LITE_SYNC)
    for label, part in (
        ("inside `EplbState.step`, p50, p99", STATE_MANAGER),
        ("between tokens, p50, p99", BETWEEN_TOKENS),
    ):
        cells = (pair(arm(one, name), part, form) for one, names, form in halves for name in names)
        yield Claim(PAGE, both, row(label, *cells))
    memory = (gib(arm(one, name)) for one, names, _ in halves for name in names)
    yield Claim(PAGE, both, row("GPU memory of both ranks, GiB", *memory))


def one_gpu(kept: Kept) -> Iterator[Claim]:
    """Both ranks on one, in loopback."""
    measured = [arm(kept.read(ONE_GPU), name)["latency"] for name in ASYNC]
    for label, part in (
        ("inside `EplbState.step`, p50, p99", STATE_MANAGER),
        ("between tokens, p50, p99", BETWEEN_TOKENS),
    ):
        cells = (pair(one, part, legible) for one in measured)
        yield Claim(PAGE, ONE_GPU, row(label, *cells))
    memory = row("GPU memory of both ranks, GiB", *map(gib, measured))
    yield Claim(PAGE, ONE_GPU, memory)


def shape(kept: Kept) -> Claim:
    """The model that all that EPLB adds shows on."""
    model = kept.read(WIDE)["model"]
    return Claim(
        PAGE,
        WIDE,
        f"a model of {model['moe_layers']} MoE layers with {model['experts']} + "
        f"{model['redundant']} experts",
    )


def user_rows(kept: Kept) -> Iterator[Claim]:
    """The table of what a user feels: two H100s, then a CPU, of the wide model."""
    halves = [kept.read(file) for file in (WIDE, CPU)]
    for label, part, key in (
        ("inside `EplbState.step`, median", STATE_MANAGER, "p50"),
        ("inside `EplbState.step`, 99 of 100", STATE_MANAGER, "p99"),
        ("between tokens, median", BETWEEN_TOKENS, "p50"),
        ("between tokens, 99 of 100", BETWEEN_TOKENS, "p99"),
    ):
        cells = (single(arm(one, name), part, key) for one in halves for name in ASYNC)
        yield Claim(PAGE, files(WIDE, CPU), row(label, *cells))


def arm(report: dict[str, Any], name: str) -> dict[str, Any]:
    """One of a run.

    Raises:
        LookupError: There is none of that name.
    """
    for one in report["arms"]:
        if one["name"] == name:
            found: dict[str, Any] = one
            return found
    raise LookupError(f"there is no arm {name}: measure it again, or drop the claim")


def pair(one: dict[str, Any], part: str, form: Form) -> str:
    """Median and 99 of 100 in a cell; without EPLB the state manager has none."""
    return f"{form(one[part]['p50'])}, {form(one[part]['p99'])}" if one[part] else "-"


def single(one: dict[str, Any], part: str, key: str) -> str:
    """One of the two."""
    return plain(legible(one[part][key])) if one[part] else "-"


def gib(one: dict[str, Any]) -> str:
    """What an arm has of all GPUs at the end."""
    return tenths(mib_as_gib(one["gpu_memory_mib"]))


def switch_row(interval: str, report: dict[str, Any]) -> str:
    """With one interval of Python's switches."""
    one = arm(report, "async")
    cells = (f"{hundredths(one[STATE_MANAGER][key])} ms" for key in ("p50", "p99"))
    rest = (f"{tenths(one[BETWEEN_TOKENS][key])} ms" for key in ("p50", "p99"))
    return row(f"{interval} ms ({report['tokens']} tokens)", *cells, *rest)


def every(report: dict[str, Any], name: str) -> float:
    """Seconds from a rearrangement to the next: all tokens of a completion, over how many began."""
    one = arm(report, name)
    seconds = report["tokens"] * mean(one[BETWEEN_TOKENS]["curve"]) / 1e3
    return float(seconds / one["rearrangements"])


def mean(curve: list[list[float]]) -> float:
    """That of a distribution of which a curve of percentiles is kept."""
    parts = pairwise(curve)
    return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in parts) / 100
