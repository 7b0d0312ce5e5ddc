# SPDX-License-Identifier: Apache-2.0
"""Rules of what became of rearrangements: enough finished, and none went wrong. Pure functions."""

from eval.config.gate_section import Gate
from eval.judging.arms import ArmToJudge, outcome, plural
from eval.results.schema import ArmRun, RuleResult

# An async rearrangement takes as long as its layers have engine steps to wait for, which varies;
# one that hangs takes for ever.
_STALL_FACTOR = 10
_STALL_SECONDS = 5.0
_STALL_SECONDS_WITHOUT_ANY = 60.0


def rearrangements(gate: Gate, arm: ArmToJudge) -> RuleResult:
    """Enough finished while the questions were asked."""
    found = arm.run.rearrangements
    return outcome(
        "rearrangements",
        True if found >= max(gate.rearrangements, 1) else None,
        f"{plural(found, 'rearrangement')} finished while the questions were asked"
        f"{_others(arm.run)}",
        limit=f"at least {max(gate.rearrangements, 1)}",
        detectable="a load balancer that does nothing, or too seldom to matter",
        arm=arm.name,
    )


def no_stall(arm: ArmToJudge) -> RuleResult:
    """The last one ended, or has not been under way for long."""
    run = arm.run
    under_way = run.under_way_seconds
    allowed = (
        _STALL_SECONDS_WITHOUT_ANY
        if run.usual_seconds is None
        else max(_STALL_FACTOR * run.usual_seconds, _STALL_SECONDS)
    )
    saw = f"{run.rearrangements_started} started, {run.rearrangements} finished{_others(run)}"
    if under_way is not None:
        saw += f", one still under way after {under_way:.1f} s when the last answer came"
    stalled = under_way is not None and under_way > allowed
    return outcome(
        "no_stall",
        False if stalled else True if run.rearrangements_started else None,
        saw,
        limit=f"the last one may be under way for {allowed:.1f} s",
        detectable=f"one that hangs more than {allowed:.1f} s before the last answer",
        arm=arm.name,
    )


def no_failed_rearrangements(arm: ArmToJudge) -> RuleResult:
    """None ended without its last layer, at any time."""
    failed, reasons = arm.run.failed + arm.run.stalled, "; ".join(arm.run.failures)
    return outcome(
        "no_failed_rearrangements",
        False if failed else True if arm.run.ended else None,
        f"{failed} of {plural(arm.run.ended, 'rearrangement')} failed{reasons and f': {reasons}'}",
        limit="none",
        detectable="a single rearrangement that ends without its last layer",
        arm=arm.name,
    )


def no_rejected_placements(arm: ArmToJudge) -> RuleResult:
    """No placement was invalid, at any time."""
    rejected = arm.run.placements_rejected
    return outcome(
        "no_rejected_placements",
        False if rejected else True if arm.run.ended else None,
        f"{plural(rejected, 'placement')} of {plural(arm.run.ended, 'rearrangement')} rejected",
        limit="none",
        detectable="a single invalid placement",
        arm=arm.name,
    )


def mode(arm: ArmToJudge, expected: str) -> RuleResult:
    """All ran as `eplb.use_async` says."""
    modes = arm.run.modes
    return outcome(
        "mode",
        True if modes == [expected] else None,
        f"rearrangements ran in mode {', '.join(modes)}" if modes else "no rearrangement",
        limit=f"{expected}, as eplb.use_async says",
        detectable="a single rearrangement in the other mode",
        arm=arm.name,
    )


def _others(run: ArmRun) -> str:
    others = run.other_outcomes()
    return f"; {others}" if others else ""
