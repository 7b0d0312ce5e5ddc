# SPDX-License-Identifier: Apache-2.0
"""Rules of what events and logs tell: did experts really move, and nothing where none may? Pure."""

from collections.abc import Iterator, Sequence

from eval.config.gate_section import Gate
from eval.judging.arms import ArmToJudge, outcome, plural
from eval.judging.check_rules import maps, weights
from eval.judging.command_line import eplb_options
from eval.judging.elsewhere_rules import no_rearrangements_elsewhere, seen_from_outside
from eval.judging.movement_rules import moved
from eval.judging.planning import planned_by
from eval.judging.rearrangement_rules import (
    mode,
    no_failed_rearrangements,
    no_rejected_placements,
    no_stall,
    rearrangements,
)
from eval.results.schema import ArmRun, RuleResult

_TOLD = 3
"""Findings of one kind that a rule lists."""


def evidence(gate: Gate, arm: ArmToJudge) -> Iterator[RuleResult]:
    """What an arm owes besides its answers; where the plugin is off, only vLLM's log can tell."""
    if arm.elsewhere is None:
        yield from _evidence(gate, arm)
    elif arm.eplb is None:
        yield no_rearrangements_elsewhere(arm, arm.elsewhere)
    else:
        owed = _evidence(gate, arm)
        yield from (seen_from_outside(gate, arm, arm.elsewhere, rule) for rule in owed)


def _evidence(gate: Gate, arm: ArmToJudge) -> Iterator[RuleResult]:
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
    yield rearrangements(gate, arm)
    if planned_by(arm.plugin) is None:
        yield _slots_changed(gate, arm)
    yield from moved(gate, arm)
    yield no_stall(arm)
    yield no_failed_rearrangements(arm)
    yield no_rejected_placements(arm)
    if arm.eplb is not None and arm.eplb.use_async is not None:
        yield mode(arm, "async" if arm.eplb.use_async else "sync")


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
