# SPDX-License-Identifier: Apache-2.0
"""Rules of what every rank compares after a commit. Pure functions."""

from collections.abc import Sequence

from eval.judging.arms import ArmToJudge, outcome, plural
from eval.results.schema import RuleResult


def weights(arm: ArmToJudge) -> RuleResult:
    """After every commit each slot holds the weights of the expert that the map names."""
    run = arm.run
    saw = (
        f"{run.weight_mismatches} of {run.weight_checks} checked slots hold other weights than "
        "those of the expert that the map names"
    )
    return _checked(
        arm,
        "weights",
        (run.weight_checks, run.weight_mismatches, run.checking_ranks),
        saw,
        "a single slot with other weights after a commit",
    )


def maps(arm: ArmToJudge) -> RuleResult:
    """After every commit the router's maps give the slots of the placement."""
    run = arm.run
    saw = (
        f"{run.map_mismatches} of {run.map_checks} checked experts have other slots in the "
        "router's maps than the placement gives"
    )
    return _checked(
        arm,
        "maps",
        (run.map_checks, run.map_mismatches, run.map_checking_ranks),
        saw,
        "a single expert with a wrong slot or replica count after a commit",
    )


def _checked(
    arm: ArmToJudge, rule: str, told: tuple[int, int, Sequence[int]], saw: str, detectable: str
) -> RuleResult:
    """About checks after commits, of which every rank owes some.

    Args:
        arm: Whose commits.
        rule: Its name.
        told: Checks, mismatches, and the ranks that checked.
        saw: Both in a sentence.
        detectable: What it could have detected.
    """
    checks, mismatches, ranks = told
    silent = [str(rank) for rank in range(arm.ranks) if rank not in ranks]
    return outcome(
        rule,
        False if mismatches else None if silent or not checks else True,
        f"{saw}; no check by rank {', '.join(silent)}" if silent else saw,
        limit=f"none, on {plural(arm.ranks, 'rank')}",
        detectable=detectable,
        arm=arm.name,
    )
