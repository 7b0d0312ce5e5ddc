# SPDX-License-Identifier: Apache-2.0
"""What a step takes in which nothing is rearranged, by `vllm-eplb bench step`."""

from collections.abc import Iterator
from typing import Any

from scripts.figures.claim import Claim, Kept
from scripts.figures.rounding import Form, digits, plain, spread, tenths, whole

PAGE = "docs/benchmarks/README.md"
CPU = "docs/benchmarks/step-cpu.json"
H200 = "docs/benchmarks/step-h200.json"

SHAPES = ("DeepSeek-V2-Lite", "Qwen3-30B", "DeepSeek-V3", "Kimi-K2")


def claims(kept: Kept) -> Iterator[Claim]:
    """The sentences of docs/benchmarks."""
    yield from of_cpu(kept.read(CPU))
    yield from of_h200(kept.read(H200))


def of_cpu(report: dict[str, Any]) -> Iterator[Claim]:
    """On two cores."""
    quiet = rows(report, without="all hooks")
    hooked = rows(report, containing="all hooks")
    yield Claim(PAGE, CPU, f"medians of {rounds(report)} pairs")
    yield Claim(
        PAGE,
        CPU,
        f"the plugin takes {spread(more(quiet), tenths)} us more than vLLM's "
        f"{spread(stock(quiet), halves)} us without settings and with events",
    )
    yield Claim(PAGE, CPU, f"and {by_shape(hooked)} with all hooks")
    most = max(one["more_us"]["p95"] for one in hooked)
    yield Claim(PAGE, CPU, f"95 of 100 calls with all hooks took at most {whole(most)} us more")
    threads = [one["threads_us"] / 1e3 for one in report["rows"] if one["threads_us"] is not None]
    yield Claim(PAGE, CPU, f"The threads take {spread(threads, tenths)} ms of a second")


def of_h200(report: dict[str, Any]) -> Iterator[Claim]:
    """On an H200."""
    bare = rows(report, containing="no settings")
    hooked = rows(report, containing="all hooks")
    yield Claim(PAGE, H200, f"vLLM {release(report)}; {rounds(report)} pairs")
    yield Claim(
        PAGE,
        H200,
        f"it takes {spread(more(bare), digits(2))} us more than vLLM's "
        f"{spread(stock(bare), whole)} us without settings",
    )
    yield Claim(PAGE, H200, f"and {by_shape(hooked)} with all hooks")


def rows(report: dict[str, Any], containing: str = "", without: str = "-") -> list[dict[str, Any]]:
    """Those whose name has one text and has not another."""
    every = report["rows"]
    return [one for one in every if containing in one["what"] and without not in one["what"]]


def more(measured: list[dict[str, Any]]) -> list[float]:
    """What the plugin's call took more than vLLM's of the same round, medians in microseconds."""
    return [one["more_us"]["median"] for one in measured]


def stock(measured: list[dict[str, Any]]) -> list[float]:
    """What vLLM's call took, medians in microseconds."""
    return [one["stock"]["host_us"]["median"] for one in measured]


def by_shape(measured: list[dict[str, Any]], form: Form = whole) -> str:
    """What it took more, a shape after the other."""
    of_each = (
        f"{spread(more([one for one in measured if one['shape'].startswith(shape)]), form)} us "
        f"({shape})"
        for shape in SHAPES
    )
    *first, last = of_each
    return f"{', '.join(first)} and {last}"


def halves(value: float) -> str:
    """To the nearest half."""
    return f"{round(value * 2) / 2:g}"


def rounds(report: dict[str, Any]) -> str:
    """How often each was called."""
    return plain(whole(report["rounds"]))


def release(report: dict[str, Any]) -> str:
    """Of vLLM."""
    return str(report["machine"]["vllm"]).split()[-1]
