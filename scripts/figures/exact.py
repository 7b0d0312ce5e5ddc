# SPDX-License-Identifier: Apache-2.0
"""Answers that are to be alike in every bit, by `python -m eval run exact`."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.figures.accuracy import Arms, arms, different
from scripts.figures.claim import Claim, Kept, row
from scripts.figures.rounding import whole

PAGE = "docs/exact.md"
FOLDER = "docs/evidence"


class Run(NamedTuple):
    """One line of a table."""

    file: str
    label: str


EXACT_ON_ONE_GPU = "exact-0.33.0/one-gpu.json"
RUNS = (
    Run(
        "exact-0.33.0/graphs.json",
        "gsm-tiny, all-gather, `exact_combine`, compiled and CUDA graphs",
    ),
    Run("exact-0.33.0/eager.json", "gsm-tiny, all-gather, `exact_combine`, `--enforce-eager`"),
    Run(
        "exact-0.33.0/gsm-mid.json",
        "gsm-mid, all-gather, `exact_combine`, compiled and CUDA graphs",
    ),
    Run(
        "exact-0.33.0/gsm-mid-deepep-v2.json",
        "gsm-mid, `deepep_v2`, `--enforce-eager`, the plugin's setting off",
    ),
    Run(
        "exact-0.33.0/without-exact-combine.json",
        "gsm-tiny, all-gather, **without** `exact_combine`",
    ),
    Run(EXACT_ON_ONE_GPU, "gsm-tiny, `exact_combine`, `--enforce-eager`"),
    Run("exact-cpu-0.32.0/exact-combine.json", "gsm-tiny, `exact_combine`"),
    Run("exact-cpu-0.32.0/without-exact-combine.json", "gsm-tiny, **without** `exact_combine`"),
)
ARMS = ("off-again", "sync", "async")

SEEN = re.compile(r"(\d+) of (\d+) answers with (\d+) tokens differ")


class Seen(NamedTuple):
    """What the rule `exact_answers` saw of an arm."""

    different: int
    questions: int
    tokens: int


def claims(kept: Kept) -> Iterator[Claim]:
    """The tables of docs/exact.md."""
    for run in RUNS:
        file = f"{FOLDER}/{run.file}"
        yield Claim(PAGE, file, table_row(run.label, kept.read(file)))


def table_row(label: str, result: dict[str, Any]) -> str:
    """A line of either table."""
    every = arms(result)
    seen = {one["arm"]: saw(one) for one in result["rules"] if one["rule"] == "exact_answers"}
    any_arm = next(iter(seen.values()))
    moved = [every[name] for name in ("sync", "async") if name in every]
    checked = sum(one["weight_checks"] for one in moved)
    wrong = sum(one["weight_mismatches"] for one in moved)
    return row(
        label,
        f"{whole(any_arm.questions)}, {whole(any_arm.tokens)}",
        *(cell(every, seen, name) for name in ARMS),
        ", ".join(whole(one["rearrangements"]) for one in moved),
        f"{whole(checked)}, {whole(wrong)}",
    )


def saw(rule: dict[str, Any]) -> Seen:
    """What is in the words of the rule.

    Raises:
        ValueError: They are others.
    """
    found = SEEN.match(rule["saw"])
    if not found:
        raise ValueError(f"exact_answers saw '{rule['saw']}': adapt SEEN to these words")
    return Seen(*map(int, found.groups()))


def cell(every: Arms, seen: dict[str, Seen], name: str) -> str:
    """Answers of which a bit differs, with those of which a word does."""
    if name not in seen:
        return ""
    bits = seen[name].different
    return f"{bits} ({different(every[name])} texts)" if bits else "0"
