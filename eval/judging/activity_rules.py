# SPDX-License-Identifier: Apache-2.0
"""Rules of what events and logs tell: did experts really move, and nothing where none may? Pure."""

from collections.abc import Iterator, Sequence

from eval.config.gate_section import Gate
from eval.judging.arms import ArmToJudge, outcome, plural
from eval.judging.check_rules import maps, weights
from eval.judging.command_line import eplb_options
from eval.judging.movement_rules import moved
from eval.judging.planning import planned_by
from eval.results.schema import ArmRun, RuleResult

# An async rearrangement takes as long as its layers have engine steps to wait for, which varies;
# one that hangs takes for ever.
_STALL_FACTOR = 10
_STALL_SECONDS = 5.0
_STALL_SECONDS_WITHOUT_ANY = 60.0

_TOLD = 3
"""Findings of one kind that a rule lists."""


def evidence(gate: Gate, arm: ArmToJudge) -> Iterator[RuleResult]:
    """What an arm owes besides its answers; where the plugin is off, only vLLM's log can tell."""
    if arm.eplb is None:
        yield _no_rearrangements(arm)
        return
    if arm.is_stock:
        yield _logged_rearrangements(gate, arm)
    else:
        yield from _told_by_events(gate, arm)
    checked = (arm.plugin or {}).get("check_weights") is True and not arm.is_stock
    # What is wrong counts also where nothing had to be checked.
    if checked or arm.run.weight_mismatches:
        yield weights(arm)
    if checked or arm.run.map_mismatches:
        yield maps(arm)


def _told_by_events(gate: Gate, arm: ArmToJudge) -> Iterator[RuleResult]:
    yield _ranks_agree(arm)
    yield _rearrangements(gate, arm)
    if planned_by(arm.plugin) is None:
        yield _slots_changed(gate, arm)
    yield from moved(gate, arm)
    yield _no_stall(arm)
    yield _no_failed_rearrangements(arm)
    yield _no_rejected_placements(arm)
    if arm.eplb is not None and arm.eplb.use_async is not None:
        yield _mode(arm, "async" if arm.eplb.use_async else "sync")


def _no_rearrangements(arm: ArmToJudge) -> RuleResult:
    """Without EPLB nothing moves, before the questions and after them neither."""
    log = arm.log
    shown = [f"its command has {option}" for option in eplb_options(arm.run.command)]
    if arm.agreement.moved:
        shown.append(f"events of {plural(arm.agreement.rearrangements, 'rearrangement')}")
    if log and log.rearrangements:
        shown.append(f"vLLM's log tells of {plural(log.rearrangements, 'rearrangement')}")
    elif log and log.eplb:
        shown.append("vLLM's log tells that EPLB was on")
    silent = "there is no log of the server" if log is None else "the server's log tells nothing"
    return outcome(
        "no_rearrangements",
        False if shown else True if log and log.speaks else None,
        "; ".join(shown) if shown else "none" if log and log.speaks else silent,
        limit="none in vLLM's log and in the events, at any time, and no option of EPLB",
        detectable="a single rearrangement, or EPLB that is on",
        arm=arm.name,
    )


def _ranks_agree(arm: ArmToJudge) -> RuleResult:
    told = arm.agreement
    contradictions, missing = _first(told.contradictions), _first(told.missing)
    if contradictions or missing:
        saw = "; ".join(part for part in (contradictions, missing) if part)
    else:
        saw = f"all tell of the same {plural(told.rearrangements, 'rearrangement')}"
    nothing = missing or not told.rearrangements
    return outcome(
        "ranks_agree",
        False if contradictions else None if nothing else True,
        saw,
        limit=f"outcomes, modes and changed slots alike on every rank, whole files of every rank "
        f"({arm.ranks} of EP on each stage); one outcome may be cut off at the end",
        detectable="two outcomes that a rank does not tell, or one that it tells otherwise",
        arm=arm.name,
    )


def _first(found: Sequence[str]) -> str:
    """The first few, which are enough to go and look."""
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return "; ".join(found[:_TOLD]) + more


def _rearrangements(gate: Gate, arm: ArmToJudge) -> RuleResult:
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


def _logged_rearrangements(gate: Gate, arm: ArmToJudge) -> RuleResult:
    found = arm.run.logged_rearrangements
    return outcome(
        "rearrangements",
        True if found >= max(gate.rearrangements, 1) else None,
        f"vLLM's log tells of {plural(found, 'rearrangement')} that began while the questions "
        "were asked; that they ended, and what they changed, is not shown without the plugin",
        limit=f"at least {max(gate.rearrangements, 1)}",
        detectable="a load balancer that does nothing",
        arm=arm.name,
    )


def _slots_changed(gate: Gate, arm: ArmToJudge) -> RuleResult:
    slots = arm.run.slots_changed
    unchanged = _unchanged_layers(arm.run)
    if unchanged:
        saw = f"no slot changed in MoE layer {', '.join(unchanged)}"
    elif len(slots) < max(gate.moe_layers, 1):
        saw = f"events of {plural(len(slots), 'MoE layer')} only"
    else:
        saw = f"{min(slots)} to {max(slots)} slots changed in each of {len(slots)} MoE layers"
    return outcome(
        "slots_changed",
        True if len(slots) >= max(gate.moe_layers, 1) and not unchanged else None,
        saw,
        limit=f"at least one in each of {max(gate.moe_layers, 1)} MoE layers or more",
        detectable="a single MoE layer whose experts stay where they are",
        arm=arm.name,
    )


def _no_stall(arm: ArmToJudge) -> RuleResult:
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


def _no_failed_rearrangements(arm: ArmToJudge) -> RuleResult:
    failed, reasons = arm.run.failed + arm.run.stalled, "; ".join(arm.run.failures)
    return outcome(
        "no_failed_rearrangements",
        False if failed else True if arm.run.ended else None,
        f"{failed} of {plural(arm.run.ended, 'rearrangement')} failed{reasons and f': {reasons}'}",
        limit="none",
        detectable="a single rearrangement that ends without its last layer",
        arm=arm.name,
    )


def _no_rejected_placements(arm: ArmToJudge) -> RuleResult:
    rejected = arm.run.placements_rejected
    return outcome(
        "no_rejected_placements",
        False if rejected else True if arm.run.ended else None,
        f"{plural(rejected, 'placement')} of {plural(arm.run.ended, 'rearrangement')} rejected",
        limit="none",
        detectable="a single invalid placement",
        arm=arm.name,
    )


def _mode(arm: ArmToJudge, expected: str) -> RuleResult:
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


def _unchanged_layers(run: ArmRun) -> list[str]:
    """Layers of which no slot changed; with several models each is named with its model."""
    if len(run.models) < 2:
        return [str(layer) for layer, changed in enumerate(run.slots_changed) if changed <= 0]
    return [
        f"{layer} of {label}"
        for label, model in zip(run.labels(), run.models, strict=True)
        for layer, changed in enumerate(model.slots_changed)
        if changed <= 0
    ]
