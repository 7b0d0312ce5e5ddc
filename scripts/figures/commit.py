# SPDX-License-Identifier: Apache-2.0
"""Commits and plans, by `vllm-eplb bench commit` and `bench plan`: vLLM's beside the plugin's."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.figures.claim import Claim, Kept, files, row
from scripts.figures.rounding import Form, decimals, digits, tenths, thousandths, times_less, whole

PAGE = "docs/benchmarks/README.md"
COMMIT = ("docs/benchmarks/commit-h200.json", "docs/benchmarks/commit-cpu.json")
PLAN = ("docs/benchmarks/plan-h200.json", "docs/benchmarks/plan-cpu.json")
"""On a GPU and on a CPU; of plans, on the host of an H200 and on another."""

PLANNED = "plan, DeepSeek-V3, 32 ranks on 4 nodes"
DEEPSEEK_V3 = "DeepSeek-V3 58 x 256+32"
KIMI_K2 = "Kimi-K2 60 x 384+64"


class Forms(NamedTuple):
    """How the times of one machine are written in a row, in milliseconds."""

    stock: Form
    plugin: Form


def claims(kept: Kept) -> Iterator[Claim]:
    """What docs/benchmarks says of them."""
    yield from commit_rows(kept)
    yield memory_row(kept)
    yield plan_row(kept)
    commits = kept.read(COMMIT[0])
    layer = stock_ms(commits, DEEPSEEK_V3, "one layer")
    every_layer = stock_ms(commits, DEEPSEEK_V3, "whole map")
    yield Claim(
        PAGE,
        COMMIT[0],
        f"needs {tenths(layer)} ms for what vLLM does for a layer of DeepSeek-V3 "
        f"and {whole(every_layer)} ms for a whole map",
    )


def commit_rows(kept: Kept) -> Iterator[Claim]:
    """The table of commits: an H200, then a CPU."""
    for shape, what, label, gpu, cpu in (
        (
            *(DEEPSEEK_V3, "one layer", "commit one layer, DeepSeek-V3, 58 x (256+32)"),
            *(Forms(tenths, thousandths), Forms(decimals(2), thousandths)),
        ),
        (
            *(KIMI_K2, "one layer", "commit one layer, Kimi-K2, 60 x (384+64)"),
            *(Forms(tenths, thousandths), Forms(decimals(2), thousandths)),
        ),
        (
            *(DEEPSEEK_V3, "whole map", "commit a whole map, DeepSeek-V3"),
            *(Forms(whole, thousandths), Forms(digits(3), decimals(2))),
        ),
        (
            *(KIMI_K2, "whole map", "commit a whole map, Kimi-K2"),
            *(Forms(whole, thousandths), Forms(digits(3), decimals(2))),
        ),
    ):
        halves = (
            time_cells(measured(kept.read(file), shape, what), forms)
            for file, forms in zip(COMMIT, (gpu, cpu), strict=True)
        )
        yield Claim(PAGE, files(*COMMIT), row(label, *(cell for half in halves for cell in half)))


def memory_row(kept: Kept) -> Claim:
    """What l2p takes of a device."""
    rows = (measured(kept.read(file), DEEPSEEK_V3, "memory of l2p") for file in COMMIT)
    halves = map(memory_cells, rows)
    cells = (cell for half in halves for cell in half)
    return Claim(PAGE, files(*COMMIT), row("memory of l2p, DeepSeek-V3", *cells))


def plan_row(kept: Kept) -> Claim:
    """The default policy, vLLM's and compiled."""
    what = "plan, 32 ranks on 4 nodes"
    forms = Forms(tenths, decimals(2))
    halves = (time_cells(measured(kept.read(one), DEEPSEEK_V3, what), forms) for one in PLAN)
    cells = (cell for half in halves for cell in half)
    return Claim(PAGE, files(*PLAN), row(PLANNED, *cells))


def measured(report: dict[str, Any], shape: str, what: str) -> dict[str, Any]:
    """One row of a report.

    Raises:
        LookupError: There is none.
    """
    for one in report["rows"]:
        if (one["shape"], one["what"]) == (shape, what):
            found: dict[str, Any] = one
            return found
    raise LookupError(f"there is no row '{what}' of {shape}: measure it again, or drop the claim")


def stock_ms(report: dict[str, Any], shape: str, what: str) -> float:
    """For how long vLLM's holds the host, median."""
    median: float = measured(report, shape, what)["stock"]["host_us"]["median"]
    return median / 1e3


def time_cells(one: dict[str, Any], forms: Forms) -> tuple[str, str, str]:
    """Medians of the host's time, and how many times less the plugin takes."""
    stock, plugin = (one[side]["host_us"]["median"] / 1e3 for side in ("stock", "plugin"))
    less = times_less(stock, plugin)
    return f"{forms.stock(stock)} ms", f"{forms.plugin(plugin)} ms", less


def memory_cells(one: dict[str, Any]) -> tuple[str, str, str]:
    """Bytes of a device, and how many times fewer."""
    stock, plugin = (one[side]["bytes"] / 1e6 for side in ("stock", "plugin"))
    return f"{tenths(stock)} MB", f"{tenths(plugin)} MB", times_less(stock, plugin)
