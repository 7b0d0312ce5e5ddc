# SPDX-License-Identifier: Apache-2.0
"""Answers beside those without EPLB, by `python -m eval run`, kept in docs/evidence."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.figures.claim import Claim, Kept, files, row
from scripts.figures.rounding import plain, spread, tenths, whole

PAGE = "docs/evidence/README.md"
FOLDER = "docs/evidence"

OTHERS = ("off-again", "sync", "async", "stock-sync", "stock-async")
OURS = ("sync", "async")


class Run(NamedTuple):
    """One line of a table."""

    folder: str
    label: str
    """What the link is on, and what follows it."""
    behind: str = ""


TWO_GPUS = tuple(
    Run(f"two-gpus-{release}-{dtype}", f"{release}, {dtype}")
    for release in ("0.26.0", "0.33.0")
    for dtype in ("float32", "bfloat16")
)
FLOAT32_ON_ONE_GPU = (
    Run("one-gpu-0.33.0-float32", "0.33.0", ", V2 | float32"),
    Run("one-gpu-0.33.0-four-ranks", "0.33.0", ", V2, four ranks | float32"),
    Run("one-gpu-0.33.0-ngram", "0.33.0", ", V2, n-gram drafter | float32"),
    Run("one-gpu-0.33.0-mtp", "0.33.0", ", V2, MTP drafter with experts | float32"),
    *(
        Run(f"one-gpu-{release}-float32", release, f", {runner} | float32")
        for release, runner in (
            *((release, "V2") for release in ("0.32.0", "0.30.0", "0.28.0", "0.26.0")),
            *((release, "V1") for release in ("0.23.0", "0.20.2")),
        )
    ),
)
BFLOAT16_ON_ONE_GPU = tuple(
    Run(f"one-gpu-{release}-bfloat16", release, f", {runner} | bfloat16")
    for release, runner in (("0.26.0", "V2"), ("0.23.0", "V1"))
)
MID_ON_ONE_GPU = (
    Run("one-gpu-gsm-mid-0.33.0-bfloat16", "bfloat16"),
    Run("one-gpu-gsm-mid-0.33.0-fp8", "FP8, a scale a channel"),
)
DEEP_EP = Run("gsm-mid-deepep-low-latency-0.33.0-bfloat16", "0.33.0")

Arms = dict[str, dict[str, Any]]


def claims(kept: Kept) -> Iterator[Claim]:
    """The tables of docs/evidence, and what is said of bfloat16 on one GPU."""
    for run in (*TWO_GPUS, *FLOAT32_ON_ONE_GPU, *BFLOAT16_ON_ONE_GPU):
        result = kept.read(path(run))
        every = arms(result)
        others = (other_answers(every, name) for name in OTHERS)
        wrong = (wrong_slots(every[name]) for name in OURS)
        yield Claim(PAGE, path(run), table_row(run, result, *others, *map(plain, wrong)))
    for run in (DEEP_EP, *MID_ON_ONE_GPU):
        for line in arm_rows(run, kept.read(path(run))):
            yield Claim(PAGE, path(run), line)
    yield from of_bfloat16(kept)


def path(run: Run) -> str:
    """Of its result, from the repository's root."""
    return f"{FOLDER}/{run.folder}/result.json"


def arms(result: dict[str, Any]) -> Arms:
    """Those of a result, by name."""
    return {one["name"]: one for one in result["arms"]}


def table_row(run: Run, result: dict[str, Any], *cells: str) -> str:
    """A row that begins with a link to the result and has its verdict."""
    link = f"[{run.label}]({run.folder}/result.json){run.behind}"
    return row(link, result["verdict"], *cells)


def arm_rows(run: Run, result: dict[str, Any]) -> Iterator[str]:
    """One for each arm, the first of them with a link to the result and its verdict."""
    link = f"[{run.label}]({run.folder}/result.json), {result['verdict']}"
    for at, one in enumerate(result["arms"]):
        ours = one["weight_checks"] > 0
        received = sum(sum(model["moves"]["experts_received"]) for model in one["models"])
        others = "" if one["name"] == "off" else str(different(one))
        moved = (str(one["rearrangements"]), plain(whole(received)), wrong_slots(one))
        yield row(
            "" if at else link,
            f"`{one['name']}`",
            str(correct(one)),
            others,
            *(moved if ours else ("", "", "")),
        )


def correct(arm: dict[str, Any]) -> int:
    """Answers that are right."""
    task = arm["tasks"][0]
    return round(float(task["accuracy"]) * int(task["questions"]))


def different(arm: dict[str, Any]) -> int:
    """Answers that are not those without EPLB."""
    task = arm["tasks"][0]
    return int(task["questions"] - task["identical_to_off"])


def other_answers(every: Arms, name: str) -> str:
    """The same in a cell, which is empty where there is no such arm."""
    return str(different(every[name])) if name in every else ""


def wrong_slots(arm: dict[str, Any]) -> str:
    """Slots with other weights than those of their expert, of those that were compared."""
    return f"{whole(arm['weight_mismatches'])} of {whole(arm['weight_checks'])}"


def of_bfloat16(kept: Kept) -> Iterator[Claim]:
    """What moving experts changes there, on one GPU."""
    runs = [path(run) for run in BFLOAT16_ON_ONE_GPU]
    moved = [
        one
        for file in runs
        for one in kept.read(file)["arms"]
        if one["name"] not in ("off", "off-again")
    ]
    shares = [100 * different(one) / one["tasks"][0]["questions"] for one in moved]
    flips = max(int(flip) for file in runs for flip in flips_of(kept.read(file)))
    yield Claim(PAGE, files(*runs), f"change {spread(shares, tenths)} % of the texts")
    yield Claim(
        PAGE,
        files(*runs),
        f"{WORDS[flips]} of 500 answers at most changed between right and wrong",
    )


WORDS = ("None", "One", "Two", "Three", "Four", "Five")
"""Small numbers at the beginning of a sentence."""


def flips_of(result: dict[str, Any]) -> Iterator[str]:
    """How many answers flipped in each arm, as the rule `noise_floor` saw."""
    for rule in result["rules"]:
        if rule["rule"] == "noise_floor":
            yield from re.findall(r"(\d+) answers flip", rule["saw"])
