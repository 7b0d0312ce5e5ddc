# SPDX-License-Identifier: Apache-2.0
"""One line for each fault: what became of the server in which it struck."""

from collections import Counter

from pydantic import BaseModel

from eval.results.schema import Result

HEADINGS = (
    *("fault", "mode", "verdict", "noticed after", "rearrangement", "later", "answers", "weights"),
)


class FaultRow(BaseModel):
    """One run."""

    fault: str
    mode: str
    verdict: str
    reasons: list[str]
    vllm: str | None
    """Release."""
    noticed_after: float | None = None
    """Seconds."""
    said: str | None = None
    """The line of the log."""
    outcome: str | None = None
    """Of the rearrangement in which it struck."""
    later: dict[str, int] = {}
    """Outcomes of those after it."""
    ended_after: float | None = None
    """Seconds until all processes had ended, where the server had to."""
    answers: int = 0
    """Greedy answers compared."""
    answers_different: int = 0
    slots_checked: int = 0
    slots_wrong: int = 0
    maps_wrong: int = 0

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADINGS`."""
        later = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.later.items()))
        if self.ended_after is not None:
            later = f"the server ended after {self.ended_after:.1f} s"
        return (
            self.fault,
            self.mode,
            self.verdict,
            "" if self.noticed_after is None else f"{self.noticed_after:.1f} s",
            self.outcome or "",
            later or "none",
            f"{self.answers}, {self.answers_different} differ",
            f"{self.slots_checked}, {self.slots_wrong} wrong",
        )


def row_of(result: Result, mode: str) -> FaultRow:
    """Of a stress run that ordered a fault."""
    fault = result.stress.fault if result.stress else None
    row = FaultRow(
        fault=fault or "none",
        mode=mode,
        verdict=result.verdict,
        reasons=result.reasons,
        vllm=result.versions.vllm,
    )
    if not result.arms or (trial := result.arms[0].trial) is None or trial.fault is None:
        return row
    arm, seen = result.arms[0], trial.fault
    since = seen.rearrangement or 0
    noticed = None
    if seen.noticed is not None and seen.struck is not None:
        noticed = round(seen.noticed - seen.struck, 2)
    later = Counter(one for number, one in seen.outcomes.items() if number > since)
    return row.model_copy(
        update={
            "noticed_after": noticed,
            "said": seen.said,
            "outcome": None if seen.rearrangement is None else seen.outcomes.get(since),
            "later": dict(later),
            "ended_after": seen.ended_after,
            "answers": trial.same_answers.asked,
            "answers_different": trial.same_answers.different,
            "slots_checked": arm.weight_checks,
            "slots_wrong": arm.weight_mismatches,
            "maps_wrong": arm.map_mismatches,
        }
    )
