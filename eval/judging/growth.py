# SPDX-License-Identifier: Apache-2.0
"""Whether a server's use of something grows while it serves."""

from eval.judging.arms import outcome
from eval.results.schema import RuleResult


def growth_rule(
    arm: str, rule: str, growth: float | None, most: int, what: str, whose: str = ""
) -> RuleResult:
    """Judge one growth.

    Args:
        arm: Whose server it is.
        rule: The rule's name.
        growth: From the second fifth of the time to the last; None: too few samples.
        most: That passes.
        what: Is counted, in its unit.
        whose: Ends the sentence, where it is not only the server's.
    """
    return outcome(
        rule,
        None if growth is None else growth <= most,
        "too few samples: let it run longer"
        if growth is None
        else f"{growth:+.0f} {what} from the second fifth of the time to the last{whose}",
        limit=f"at most {most} more",
        detectable=f"a leak of more than {most} {what} in three fifths of the time",
        arm=arm,
    )
