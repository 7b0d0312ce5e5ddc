# SPDX-License-Identifier: Apache-2.0
"""What policies reach and move on drawn and recorded loads, by `vllm-eplb bench plan`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import plain, tenths, thousandths, whole

PAGE = "docs/benchmarks/plans.md"
EXPLAINED = "docs/planning.md"
FOLDER = "docs/benchmarks/plans"

NEAR = "incremental,target=0.98"
NEAREST = "incremental,target=0.98,kappa=0"


class Table(NamedTuple):
    """Rows of one table: all shapes and loads of some files."""

    names: str
    """Of files, without their ends."""
    loads: str
    columns: tuple[str, ...]
    """Policies; ``none`` is told by what it serves alone."""


TABLES = (
    Table(
        "qwen3 v3 kimi32 kimi64",
        "slow medium",
        ("none", "default", "swift", "incremental", NEAREST),
    ),
    Table("v3groups", "slow medium switch", ("none", "default", "incremental", NEAREST)),
    Table("switch switch-v3", "switch", ("default", NEAR, NEAREST)),
    Table("stationary", "stationary", ("default", "incremental")),
    Table(
        "kappa kappa-v3",
        "slow medium",
        (
            *("default", "swift", "incremental,kappa=1.5", "incremental,kappa=1.2"),
            "incremental,target=0.995,kappa=1.2",
        ),
    ),
    Table("olmoe", "own another mix", ("none", "default", "swift", "biased", "incremental")),
)

COSTS = f"{FOLDER}/policies.json"
COSTS_SHAPES = {
    "Qwen3-30B 48 x 128+16": "Qwen3 48 x (128+16), 8 ranks",
    "60x384+64/1x1x32 60 x 384+64": "Kimi-K2 60 x (384+64), 32 ranks",
}
COSTS_POLICIES = ("default", "default+keep_in_place", "replicas_only", "incremental")


def claims(kept: Kept) -> Iterator[Claim]:
    """The tables of docs/benchmarks/plans.md, and that of docs/planning.md."""
    for table in TABLES:
        for name in table.names.split():
            file = f"{FOLDER}/{name}.json"
            for case in cases(kept.read(file), table.loads.split()):
                yield Claim(PAGE, file, table_row(case, table.columns))
    yield Claim(PAGE, f"{FOLDER}/kappa-v3.json", kappa_in_words(kept))
    yield Claim(PAGE, f"{FOLDER}/v3groups.json", grouped_in_words(kept))
    for case in cases(kept.read(COSTS), ["stationary", "slow", "medium"]):
        yield Claim(EXPLAINED, COSTS, costs_row(case))


Case = dict[str, dict[str, Any]]
"""What each policy made of one shape, number of ranks and load."""


def cases(report: dict[str, Any], loads: list[str]) -> Iterator[Case]:
    """All of a file, as it has them."""
    found: dict[tuple[str, int, str], Case] = {}
    for one in report["policies"]:
        case = found.setdefault((one["shape"], one["ranks"], one["load"]), {})
        case[one["policy"]] = one
    return (case for (*_, load), case in found.items() if load in loads)


def table_row(case: Case, columns: tuple[str, ...]) -> str:
    """A line of docs/benchmarks/plans.md."""
    one = case["default"]
    experts = "".join(one["shape"].split()[-3:])
    return row(f"{experts}, {one['ranks']}", one["load"], *(cell(case, name) for name in columns))


def cell(case: Case, policy: str) -> str:
    """Balancedness, experts received, how many times fewer, and the time of a plan."""
    one = case[policy]
    if policy == "none":
        return thousandths(one["next"])
    said = f"{balancedness(one)}, {experts_received(one)}"
    if policy == "default" or not one["received"]:
        return said
    fewer = tenths(case["default"]["received"] / one["received"])
    return f"{said}, **{plain(fewer)}**, {tenths(one['plan_ms'])} ms"


def balancedness(one: dict[str, Any]) -> str:
    """Of the window that was planned from, and of the next."""
    return f"{thousandths(one['now'])} / {thousandths(one['next'])}"


def experts_received(one: dict[str, Any]) -> str:
    """Of one plan, mean."""
    return plain(whole(one["received"]))


def costs_row(case: Case) -> str:
    """A line of docs/planning.md."""
    one = case["default"]
    return row(
        f"{COSTS_SHAPES[one['shape']]}, {one['load']}",
        *(
            f"{balancedness(case[name])}, {experts_received(case[name])}, "
            f"{tenths(case[name]['plan_ms'])} ms"
            for name in COSTS_POLICIES
        ),
    )


def grouped_in_words(kept: Kept) -> str:
    """How many times fewer experts move at most where groups stay on nodes, medium drift."""
    (case,) = cases(kept.read(f"{FOLDER}/v3groups.json"), ["medium"])
    fewer = tenths(case["default"]["received"] / case[NEAREST]["received"])
    return f"it is [{fewer} times](#deepseek-v3-8-expert-groups-on-4-nodes)"


def kappa_in_words(kept: Kept) -> str:
    """What one more kappa reaches, slow and medium drift."""
    slow, medium = (
        case["incremental,kappa=1.05"]
        for case in cases(kept.read(f"{FOLDER}/kappa-v3.json"), ["slow", "medium"])
        if case["default"]["ranks"] == 32
    )
    served = " / ".join(thousandths(one["next"]).removeprefix("0") for one in (slow, medium))
    received = " / ".join(map(experts_received, (slow, medium)))
    return f"(DeepSeek-V3 on 32 ranks with kappa 1.05: {served} for {received} experts)"
