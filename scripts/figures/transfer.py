# SPDX-License-Identifier: Apache-2.0
"""A layer's experts from rank to rank, by `vllm-eplb bench transfer`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import Form, digits, hundredths, spread, tenths, times_less, whole

PAGE = "docs/benchmarks/README.md"
EXPLAINED = "docs/transfer.md"
TWO = "docs/benchmarks/transfer-h200x2.json"
FOUR = "docs/benchmarks/transfer-h200x4.json"

LITE = "DeepSeek-V2-Lite"
WHOLE = "all, whole"


class Row(NamedTuple):
    """One line of the table of docs/benchmarks."""

    file: str
    label: str
    shape: str
    share: str
    rates: str = ""
    """Ways whose rate stands beside their time."""
    units: str = ""
    """Ways whose rate has its unit."""


ROWS = (
    Row(TWO, LITE, LITE, WHOLE, "gloo nixl pynccl peers", "gloo peers"),
    Row(TWO, "", LITE, "all", "peers"),
    Row(TWO, "", LITE, "half", "peers"),
    Row(TWO, "", LITE, "1 %"),
    Row(TWO, "Qwen3-235B", "Qwen3-235B", WHOLE, "peers"),
    Row(TWO, "", "Qwen3-235B", "half", "peers"),
    Row(TWO, "DeepSeek-V3", "DeepSeek-V3", WHOLE, "peers"),
    Row(TWO, "", "DeepSeek-V3", "half", "peers"),
    Row(FOUR, f"{LITE}, four GPUs", LITE, WHOLE, "gloo nixl pynccl peers"),
    Row(FOUR, "", LITE, "all", "peers"),
)


def claims(kept: Kept) -> Iterator[Claim]:
    """The table and the sentences of docs/benchmarks, and of docs/transfer.md."""
    for line in ROWS:
        yield Claim(PAGE, line.file, table_row(kept.read(line.file), line))
    report = kept.read(TWO)
    rate = report["rates"]["peer"] / 1e9
    yield Claim(PAGE, TWO, f"A peer's memory is read at {whole(rate)} GB/s in one copy")
    fewest = [
        one["seconds"]["transfer"]["median"] * 1e3
        for one in report["rows"]
        if (one["share"], one["way"]) == ("1 %", "peers")
    ]
    yield Claim(PAGE, TWO, f"Beside the copies a layer takes {spread(fewest, tenths)} ms")
    yield Claim(PAGE, TWO, expert_sizes(report))
    yield Claim(PAGE, TWO, on_what(report))
    peers = by_way(report, LITE, WHOLE)["peers"]
    size = tenths(peers["nbytes"] / 1e9)
    yield Claim(PAGE, TWO, f"With {LITE}'s sizes a layer's experts are {size} GB a rank")
    weights, layer = (peers["seconds"][part]["median"] * 1e3 for part in ("weights", "layer"))
    yield Claim(
        EXPLAINED,
        TWO,
        f"({tenths(weights)} of {tenths(layer)} ms for all experts of a layer of {LITE})",
    )


def on_what(report: dict[str, Any]) -> str:
    """The machine, and what was measured."""
    machine = report["machine"]
    torch = ".".join(machine["torch"].split(".")[:2])
    return f"Intel Xeon, {machine['cores']} cores, vLLM {report['vllm']}, torch {torch}"


def by_way(report: dict[str, Any], shape: str, share: str) -> dict[str, dict[str, Any]]:
    """Every way of one share of a layer.

    Raises:
        LookupError: None was measured.
    """
    rows = [one for one in report["rows"] if (one["shape"], one["share"]) == (shape, share)]
    if not rows:
        raise LookupError(f"{share} of {shape} is not there: measure it again, or drop the claim")
    return {one["way"]: one for one in rows}


def layer_ms(one: dict[str, Any]) -> float:
    """Transfer and weights together, median."""
    median: float = one["seconds"]["layer"]["median"]
    return median * 1e3


def table_row(report: dict[str, Any], line: Row) -> str:
    """Times in milliseconds, rates, and how many times less `peers` takes."""
    ways = by_way(report, line.shape, line.share)
    ms = {way: layer_ms(one) for way, one in ways.items()}
    peers = ways["peers"]

    def cell(way: str, form: Form) -> str:
        rate = ways[way]["bytes_a_second"] / 1e9
        unit = " GB/s" if way in line.units.split() else ""
        return form(ms[way]) + (
            f", {digits(2 + (rate >= 100))(rate)}{unit}" if way in line.rates.split() else ""
        )

    best = cell("peers", hundredths)
    size = f" ({megabytes(peers['nbytes'])})" if line.share == WHOLE else ""
    return row(
        line.label,
        SHARES.get(line.share, line.share) + size,
        cell("gloo", gloo_form(ms["gloo"])),
        cell("nixl", tenths),
        cell("pynccl", tenths),
        f"**{best}**" if line.units else best,
        f"{times_less(ms['gloo'], ms['peers'])}, {tenths(ms['nixl'] / ms['peers'])}",
        floor_form(1 / peers["share_of_floor"]),
    )


SHARES = {"1 %": "1 of 40"}
"""By how many slots of a rank."""


def gloo_form(ms: float) -> Form:
    """Tenths where they are worth something."""
    return whole if ms >= 100 else tenths


def floor_form(times: float) -> str:
    """How many times the least, to a hundredth where it is near."""
    return hundredths(times) if times < 10 else whole(times)


def megabytes(size: int) -> str:
    """A size in MB, or in GB."""
    return f"{whole(size / 1e6)} MB" if size < 1e9 else f"{tenths(size / 1e9)} GB"


def expert_sizes(report: dict[str, Any]) -> str:
    """Bytes of one expert of the shapes in bfloat16, from what all slots of a rank received."""
    sizes = {
        one["shape"]: one["nbytes"] / one["received"] / 1e6
        for one in report["rows"]
        if one["share"] == WHOLE
    }
    return (
        f"({LITE} {tenths(sizes[LITE])} MB, Qwen3-235B {tenths(sizes['Qwen3-235B'])} MB), "
        f"or float8 with its block scales, four tensors "
        f"(DeepSeek-V3, {tenths(sizes['DeepSeek-V3'])} MB)"
    )
