# SPDX-License-Identifier: Apache-2.0
"""Rules of a server in which a fault struck: what is promised of it (docs/faults.md). Pure."""

from collections import Counter
from collections.abc import Iterator

from eval.config.faults import PROMISES, FaultName, Promise
from eval.judging.arms import outcome, plural
from eval.results.schema import RuleResult
from eval.results.trial import FaultSeen

_SECONDS_TO_END = 90.0
"""For all processes of a server one of which is killed: vLLM gives itself and its engines some."""


def fault_rules(arm: str, fault: FaultName, seen: FaultSeen) -> Iterator[RuleResult]:
    """Apply those of one fault.

    Args:
        arm: Its name.
        fault: That was ordered.
        seen: What became of it.
    """
    promise = PROMISES[fault]
    yield _noticed(arm, promise, seen)
    if promise.ends:
        yield _ended(arm, seen)
        return
    if promise.outcome is not None:
        yield _outcome(arm, promise.outcome, seen)
    yield _later(arm, promise, seen)


def _noticed(arm: str, promise: Promise, seen: FaultSeen) -> RuleResult:
    late = None
    if seen.struck is not None and seen.noticed is not None:
        late = seen.noticed - seen.struck
    if seen.struck is None:
        verdict, saw = None, f"{seen.fault} did not strike"
    elif late is None:
        verdict, saw = False, f"{seen.fault} struck, and no line of the log names it"
    else:
        verdict, saw = late <= seen.limit, f"after {late:.1f} s: {seen.said}"
    return outcome(
        "noticed",
        verdict,
        saw,
        limit=f"within {seen.limit:g} s, by a line that has: "
        f"{promise.said.replace('{rank}', str(seen.rank))}",
        detectable="a fault of which nobody is told, or too late, or that is named wrongly",
        arm=arm,
    )


def _ended(arm: str, seen: FaultSeen) -> RuleResult:
    ended = seen.ended_after
    left = ", ".join(seen.left)
    if ended is None:
        saw = f"it still runs: {left}" if seen.struck is not None else "nothing struck"
    else:
        saw = f"all processes had ended after {ended:.1f} s"
        saw += f"; left: {left}" if left else ""
    good = ended is not None and ended <= _SECONDS_TO_END and not left
    return outcome(
        "ended",
        None if seen.struck is None else good,
        saw,
        limit=f"all processes within {_SECONDS_TO_END:g} s, and nothing of theirs in /dev/shm",
        detectable="a single process or file that stays behind",
        arm=arm,
    )


def _outcome(arm: str, expected: str, seen: FaultSeen) -> RuleResult:
    number = seen.rearrangement
    found = None if number is None else seen.outcomes.get(number)
    return outcome(
        "outcome",
        None if number is None else found == expected,
        f"rearrangement {number}, in which it struck: {found or 'none'}",
        limit=expected,
        detectable="a rearrangement that ends otherwise, or never",
        arm=arm,
    )


def _later(arm: str, promise: Promise, seen: FaultSeen) -> RuleResult:
    since = seen.rearrangement or 0
    later = {number: one for number, one in seen.outcomes.items() if number > since}
    counted = Counter(later.values())
    told = ", ".join(f"{number} {one}" for one, number in sorted(counted.items())) or "none"
    if promise.later is None:
        verdict, limit = not later, "none: EPLB is off until the server starts again"
    else:
        verdict = bool(later) and set(counted) <= {promise.later, "skipped"}
        limit = f"every one {promise.later}, and at least one"
    return outcome(
        "later_rearrangements",
        None if seen.struck is None else verdict,
        f"{plural(len(later), 'rearrangement')} since: {told}",
        limit=limit,
        detectable="a load balancer that stays off, or one that should be off and is not",
        arm=arm,
    )
