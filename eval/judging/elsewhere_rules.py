# SPDX-License-Identifier: Apache-2.0
"""What rules about EPLB come to where its server runs elsewhere, and no log is here. Pure.

Each rule says from what it knows. Metrics tell less than events: of all ranks together, and of no
layer. What they cannot show is not tested, with the reason.
"""

from collections.abc import Iterator, Mapping, Sequence

from eval.activity.by_metrics import (
    activity_by_metrics,
    experts_moved,
    state_of_eplb,
    tells_of_eplb,
)
from eval.config.gate_section import Gate
from eval.judging.arms import ArmToJudge, outcome, plural
from eval.results.elsewhere import ServedElsewhere
from eval.results.schema import RuleResult

_PROVEN: Mapping[str, str | None] = {
    "rearrangements": None,
    "no_stall": "of a rank on the host that answers /metrics",
    "no_failed_rearrangements": "on EP rank 0, whose figures metrics are",
    "no_rejected_placements": None,
    "mode": None,
}
"""Rules that metrics can pass, each with what that is limited to; none: to nothing."""

_NOT_TOLD: Mapping[str, str] = {
    "ranks_agree": "what each rank tells by itself",
    "slots_changed": "in which layers slots changed",
    "policy": "what planned the placements",
    "weights": "which slots were compared",
    "maps": "which experts were compared",
}
"""What metrics do not tell, by the rule that needs it."""


def seen_from_outside(
    gate: Gate, arm: ArmToJudge, elsewhere: ServedElsewhere, rule: RuleResult
) -> RuleResult:
    """A rule about an arm with EPLB, as far as what tells of it can show.

    Args:
        gate: What is owed.
        arm: Whose server runs elsewhere.
        elsewhere: Where, and what tells of it.
        rule: The rule as it would be of a server that the harness started.
    """
    if rule.verdict == "failed":
        return _by(elsewhere, rule)
    if arm.is_stock:
        return _untested(rule, "its log is not here, and of vLLM's own EPLB nothing else tells")
    if elsewhere.witness == "nothing":
        return _untested(rule, f"nothing tells of its EPLB: {elsewhere.lacking}")
    if elsewhere.witness == "events":
        return _by(elsewhere, rule) if rule.rule != "rearrangements" else _told_too(arm, rule)
    if rule.rule == "experts_received":
        return _experts_received(gate, arm, rule)
    if rule.rule in _PROVEN:
        return _by(elsewhere, _limited(rule, _PROVEN[rule.rule]))
    needed = _NOT_TOLD.get(rule.rule, "this")
    return _untested(
        rule,
        f"metrics do not tell {needed}, only events do, and {elsewhere.lacking}"
        f"{_moved(arm) if rule.rule == 'slots_changed' else ''}",
    )


def no_rearrangements_elsewhere(arm: ArmToJudge, elsewhere: ServedElsewhere) -> RuleResult:
    """Without EPLB, a server with the plugin has no metrics of it."""
    told = next((one for one in reversed(arm.scrapes) if one.names_eplb), None)
    shown = []
    if arm.agreement.moved:
        shown.append(f"events of {plural(arm.agreement.rearrangements, 'rearrangement')}")
    if told is not None:
        state = state_of_eplb(told)
        began = int(told.total("rebalance_events_total"))
        shown.append(
            f"its /metrics tells of EPLB{f' that is {state[0]}' if state else ''}, and of "
            f"{plural(began, 'rearrangement')}"
        )
    silent = elsewhere.witness == "metrics"
    nothing = (
        "its /metrics has nothing of EPLB, before the first question and after the last answer"
    )
    return outcome(
        "no_rearrangements",
        False if shown else True if silent else None,
        "; ".join(shown) or (nothing if silent else elsewhere.lacking),
        limit="nothing of EPLB on its /metrics and in its events, at any time",
        detectable="EPLB that is on with the plugin; not that of a vLLM without it, or with its "
        "metrics turned off",
        arm=arm.name,
    )


def notes_of_elsewhere(arms: Sequence[ArmToJudge], rules: Sequence[RuleResult]) -> Iterator[str]:
    """For each arm with EPLB that runs elsewhere: what tells of it, and what is not tested so.

    Args:
        arms: All of the run.
        rules: All that were applied.
    """
    for arm in arms:
        elsewhere = arm.elsewhere
        if elsewhere is None or arm.eplb is None:
            continue
        if elsewhere.witness == "events":
            yield f"{_where(arm, elsewhere)}: its EPLB is judged by its events"
            continue
        untested = [
            rule.rule for rule in rules if rule.arm == arm.name and rule.verdict == "not tested"
        ]
        of_eplb = [name for name in dict.fromkeys(untested) if name in _OF_EPLB]
        what = "its /metrics" if elsewhere.witness == "metrics" else "nothing"
        yield (
            f"{_where(arm, elsewhere)}: its EPLB is judged by {what}, because "
            f"{elsewhere.lacking}{_so_untested(of_eplb)}"
        )


_OF_EPLB = {*_PROVEN, *_NOT_TOLD, "experts_received"}


def _where(arm: ArmToJudge, elsewhere: ServedElsewhere) -> str:
    return f"arm {arm.name} runs elsewhere, at {elsewhere.url}"


def _so_untested(rules: Sequence[str]) -> str:
    return f". Not tested for that: {', '.join(rules)}" if rules else ""


def _experts_received(gate: Gate, arm: ArmToJudge, rule: RuleResult) -> RuleResult:
    """Metrics add all layers up, which is enough where the gate asks for one."""
    moved = experts_moved(arm.scrapes)
    enough = moved >= max(gate.experts_received, 1) and gate.moe_layers <= 1
    return rule.model_copy(
        update={
            "verdict": "passed" if enough else "not tested",
            "saw": f"{plural(moved, 'expert')} received by a rank that had none of it, by its "
            "/metrics, which does not tell of how many layers",
        }
    )


def _told_too(arm: ArmToJudge, rule: RuleResult) -> RuleResult:
    """Rearrangements by events, which may be those of another server."""
    saw, run = f"{rule.saw}, by its events", arm.run
    if not run.rearrangements and tells_of_eplb(arm.scrapes):
        told = activity_by_metrics(arm.scrapes, run.asked_from, run.asked_until).rearrangements
        saw += f"; its /metrics tells of {told}: is its folder of events that of this server?"
    return rule.model_copy(update={"saw": saw})


def _moved(arm: ArmToJudge) -> str:
    return f"; by its /metrics {plural(experts_moved(arm.scrapes), 'expert')} went to another rank"


def _by(elsewhere: ServedElsewhere, rule: RuleResult) -> RuleResult:
    what = {"events": "events", "metrics": "/metrics", "nothing": "answers"}[elsewhere.witness]
    return rule.model_copy(update={"saw": f"{rule.saw}, by its {what}"})


def _limited(rule: RuleResult, to: str | None) -> RuleResult:
    if to is None:
        return rule
    return rule.model_copy(update={"detectable": f"{rule.detectable}, {to}"})


def _untested(rule: RuleResult, why: str) -> RuleResult:
    return rule.model_copy(update={"verdict": "not tested", "saw": why})
