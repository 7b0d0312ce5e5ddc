# SPDX-License-Identifier: Apache-2.0
"""EPLB broken on purpose, by `scripts/faults`."""

from collections.abc import Iterator
from typing import Any

from scripts.figures.claim import Claim, Kept
from scripts.figures.rounding import tenths, whole

PAGE = "docs/faults.md"
FILE = "docs/evidence/faults-cpu.json"

SOAK = "docs/evidence/soak-cpu/soak.json"

WATCHED = "EPLB stands still"
"""How the watch begins what it says once a limit is over."""


def claims(kept: Kept) -> Iterator[Claim]:
    """The sentences of docs/faults.md."""
    every = kept.read(FILE)["faults"]
    yield Claim(PAGE, FILE, f"All {len(every)} were run so")
    if all(one["verdict"] == "passed" for one in every):
        yield Claim(PAGE, FILE, "[each passed](evidence/faults-cpu.json)")
    stood = [one for one in every if over_a_limit(one)]
    at_once = [one for one in every if not over_a_limit(one)]
    yield Claim(
        PAGE,
        FILE,
        f"What the watch notices was in the log within {tenths(latest(stood))} s, "
        f"what is an error within {tenths(latest(at_once))} s",
    )
    answers, slots = (sum(one[key] for one in every) for key in ("answers", "slots_checked"))
    if not any(one["answers_different"] or one["slots_wrong"] for one in every):
        yield Claim(
            PAGE,
            FILE,
            f"of {whole(answers)} answers none differed, of {whole(slots)} slots none was wrong",
        )
    yield Claim(PAGE, FILE, f"a killed rank's server had ended after {ended(every, 'rank_killed')}")
    yield Claim(PAGE, FILE, f"a killed front end's after {ended(every, 'front_end_killed')}")
    yield stopped(kept)


def stopped(kept: Kept) -> Claim:
    """How often a soak stopped a rank."""
    (arm,) = kept.read(SOAK)["arms"]
    count = sum(one["what"] == "rank stopped" for one in arm["trial"]["happenings"])
    return Claim(PAGE, SOAK, f"[soak](evidence/README.md#soaks) stopped ranks {count} times")


def over_a_limit(fault: dict[str, Any]) -> bool:
    """Whether nothing happened for a limit; a thread that has ended is told of at once."""
    return WATCHED in fault["said"] and " for " in fault["said"]


def latest(faults: list[dict[str, Any]]) -> float:
    """After how many seconds the last of them was in the log."""
    return max(float(one["noticed_after"]) for one in faults)


def ended(every: list[dict[str, Any]], name: str) -> str:
    """After how many seconds a server had ended, in sync and in async mode."""
    return " and ".join(f"{tenths(one['ended_after'])} s" for one in every if one["fault"] == name)
