# SPDX-License-Identifier: Apache-2.0
"""Whether EPLB pays, by `python -m eval throughput`."""

from collections.abc import Iterator
from math import exp, log, sqrt
from statistics import fmean, median, stdev
from typing import Any

from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import digits, hundredths, legible, tenths, thousandths, whole

PAGE = "docs/throughput.md"
FILE = "docs/benchmarks/throughput-v2-lite-h200x2.json"

DECODE, PREFILL = "decode-switching", "prefill-switching"
ARMS = ("off", "balanced", "stock-async", "async", "async-incremental", "warm")
MOVING = ("async", "async-incremental")
"""Arms of which events tell what moved."""

T_OF_FIVE = 2.7764
"""Student's t of a 95 % interval over five rounds."""

Rounds = list[dict[str, Any]]


def claims(kept: Kept) -> Iterator[Claim]:
    """The table, and the sentences below it."""
    result = kept.read(FILE)
    arms = {one["name"]: one["throughput"] for one in result["arms"]}
    begun = {one["name"]: one["rearrangements"] for one in result["arms"]}
    for text in (on_what(result), *table(arms), *sentences(arms), experts(arms, begun)):
        yield Claim(PAGE, FILE, text)


def on_what(result: dict[str, Any]) -> str:
    """The machine."""
    machine = result["machine"]
    accelerators = machine["accelerators"]
    return (
        f"{('No', 'One', 'Two', 'Three', 'Four')[len(accelerators)]} "
        f"{accelerators[0].removeprefix('NVIDIA ')}, {machine['cores']} cores of an Intel Xeon, "
        f"vLLM {result['versions']['vllm']}"
    )


def table(arms: dict[str, Rounds]) -> Iterator[str]:
    """Its rows."""
    for name, traffic in (("decode", DECODE), ("prefill", PREFILL)):
        cells = (times_off(arms["off"], arms[arm], traffic) for arm in ARMS[1:])
        yield row(f"{name}: times off", "", *cells)
    for key in ("p50", "p99"):
        cells = (legible(between_tokens(arms[arm], DECODE, key)) for arm in ARMS)
        yield row(f"decode, ms between tokens, {key}", *cells)
    yield moving_row(
        "balancedness as served, decode",
        [thousandths(fmean(told(arms[arm], DECODE, "balancedness"))) for arm in MOVING],
    )
    received = (sum(told(arms[arm], DECODE, "bytes_received")) / 2**30 for arm in MOVING)
    yield moving_row("weights received, decode", [f"{digits(3)(one)} GiB" for one in received])


def sentences(arms: dict[str, Rounds]) -> Iterator[str]:
    """What the page makes of it."""
    prompt = digits(2)(between_tokens(arms["off"], PREFILL, "p50"))
    yield f"A step with a prompt in it took {prompt} ms"
    warm, off = (between_tokens(arms[arm], DECODE, "p50") for arm in ("warm", "off"))
    yield f"`warm`, whose experts stay, takes {tenths(warm - off)} ms more for a step than `off`"


def experts(arms: dict[str, Rounds], begun: dict[str, int]) -> str:
    """Those that ranks received, of as many rearrangements in both arms."""
    scratch, incremental = received(arms)
    return (
        f"of the same {as_many(begun)} rearrangements, {incremental} received instead of {scratch}"
    )


def received(arms: dict[str, Rounds]) -> tuple[str, str]:
    """Experts that ranks received, planned from scratch and from where experts are."""
    scratch, incremental = (whole(sum(told(arms[arm], "", "experts_received"))) for arm in MOVING)
    return scratch, incremental


def as_many(begun: dict[str, int]) -> int:
    """Count the rearrangements of either arm.

    Raises:
        ValueError: One had more than the other.
    """
    if len({begun[arm] for arm in MOVING}) > 1:
        raise ValueError("arms had different numbers of rearrangements: say both")
    return begun["async"]


def of_traffic(rounds: Rounds, traffic: str) -> Rounds:
    """Those of one traffic; of all, where it has no name."""
    return [one for one in rounds if traffic in ("", one["traffic"])]


def told(rounds: Rounds, traffic: str, key: str) -> list[float]:
    """A figure of each round that has it."""
    return [one[key] for one in of_traffic(rounds, traffic) if one[key] is not None]


def between_tokens(rounds: Rounds, traffic: str, key: str) -> float:
    """Of the median round, in milliseconds."""
    return float(median(one["between_tokens"][key] for one in of_traffic(rounds, traffic)))


def times_off(off: Rounds, rounds: Rounds, traffic: str) -> str:
    """The geometric mean of ratios to `off` in the same rounds, with its 95 % interval."""
    rates = {(one["group"], one["round"]): rate(one) for one in of_traffic(off, traffic)}
    logs = [
        log(rate(one) / rates[one["group"], one["round"]]) for one in of_traffic(rounds, traffic)
    ]
    if len(logs) != 5:
        raise ValueError(f"{len(logs)} rounds: T_OF_FIVE is the interval's of five")
    middle, half = fmean(logs), T_OF_FIVE * stdev(logs) / sqrt(len(logs))
    least, most = (hundredths(exp(middle + side * half)) for side in (-1, 1))
    return f"{hundredths(exp(middle))} ({least} to {most})"


def rate(one: dict[str, Any]) -> float:
    """Tokens a second, read and generated."""
    tokens = one["prompt_tokens"] + one["generated_tokens"]
    return float(tokens / one["seconds"])


def moving_row(label: str, cells: list[str]) -> str:
    """A row that only arms whose events tell have cells in."""
    by_arm = dict(zip(MOVING, cells, strict=True))
    return row(label, *(by_arm.get(arm, "") for arm in ARMS))
