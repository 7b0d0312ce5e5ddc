# SPDX-License-Identifier: Apache-2.0
"""Rules of what plans moved: by whom they were made, and that they moved enough, or less. Pure."""

from collections.abc import Iterator, Sequence

from eval.config.gate_section import Gate
from eval.judging.arms import ArmToJudge, outcome, plural
from eval.judging.planning import differ_in_planning_only, planned_by
from eval.results.schema import RuleResult


def moved(gate: Gate, arm: ArmToJudge) -> Iterator[RuleResult]:
    """What an arm with a policy of its own owes instead of changed slots in each layer.

    A policy that moves little may rightly leave a layer as it is; that experts went from one rank
    to another is shown by how many did.
    """
    policy = planned_by(arm.plugin)
    if policy is not None:
        yield _policy(arm, policy)
        yield _experts_received(gate, arm)


def _policy(arm: ArmToJudge, expected: str) -> RuleResult:
    found = sorted({policy for moves in arm.run.moves for policy in moves.policies})
    return outcome(
        "policy",
        found == [expected] if found else None,
        f"placements were planned by {', '.join(found)}" if found else "no plan is told",
        limit=f"{expected}, as the plugin's setting planning says",
        detectable="a single rearrangement that another policy planned",
        arm=arm.name,
    )


def _experts_received(gate: Gate, arm: ArmToJudge) -> RuleResult:
    layers = [experts for moves in arm.run.moves for experts in moves.experts_received]
    least = max(gate.experts_received, 1)
    whole = len(layers) >= max(gate.moe_layers, 1)
    saw = f"{plural(sum(layers), 'expert')} received by a rank that had none of it"
    saw += f", {', '.join(map(str, layers)) or 'none'} in {plural(len(layers), 'MoE layer')}"
    return outcome(
        "experts_received",
        True if whole and sum(layers) >= least else None,
        saw,
        limit=f"at least {least}, told of {max(gate.moe_layers, 1)} MoE layers or more",
        detectable="a policy that moves nothing, or too little for its answers to prove anything",
        arm=arm.name,
    )


def fewer_bytes(gate: Gate, arms: Sequence[ArmToJudge]) -> Iterator[RuleResult]:
    """Each arm with a policy of its own beside one that plans as vLLM does, where that is asked."""
    if gate.share_of_bytes is None:
        return
    for arm in arms:
        if arm.eplb is not None and not arm.is_stock and planned_by(arm.plugin) is not None:
            yield _fewer_bytes(arm, _counterpart(arm, arms), gate.share_of_bytes)


def _counterpart(arm: ArmToJudge, arms: Sequence[ArmToJudge]) -> ArmToJudge | None:
    """An arm of the same run and mode; the one whose EPLB is alike in all else comes first."""
    found = [
        one
        for one in arms
        if arm.eplb is not None
        and one.eplb is not None
        and one.run.run == arm.run.run
        and one.eplb.use_async == arm.eplb.use_async
        and planned_by(one.plugin) is None
        and differ_in_planning_only(one.plugin, arm.plugin)
    ]
    return min(found, key=lambda one: one.eplb != arm.eplb, default=None)


def _fewer_bytes(arm: ArmToJudge, beside: ArmToJudge | None, share: float) -> RuleResult:
    passed, saw = None, "no arm of this run and mode plans as vLLM does and is alike in all else"
    if beside is not None and not (arm.run.moves and beside.run.bytes_received):
        silent = arm if not arm.run.moves else beside
        saw = f"the events of arm {silent.name} tell of no bytes"
    elif beside is not None:
        mine, its = arm.run.bytes_received, beside.run.bytes_received
        asked, asked_there = (
            sum(task.questions for task in one.run.tasks) for one in (arm, beside)
        )
        found = _of_one(arm) / _of_one(beside)
        passed = mine * asked_there < its * asked and found <= share
        saw = (
            f"ranks received {mine} bytes, those of arm {beside.name} {its}"
            f"{f', with {asked} and {asked_there} questions' * (asked != asked_there)}; in one "
            f"rearrangement {_of_one(arm):.0f} and {_of_one(beside):.0f}, a share of {found:.3f}"
        )
    return outcome(
        "fewer_bytes",
        passed,
        saw,
        limit=f"fewer than in an arm of the same mode that plans as vLLM does, and in one "
        f"rearrangement {share:g} of its bytes",
        detectable="a policy that moves as much as vLLM's, or settings that do not arrive",
        arm=arm.name,
    )


def _of_one(arm: ArmToJudge) -> float:
    """Bytes in one rearrangement: async, the fewer layers change the more of them there are."""
    return arm.run.bytes_received / sum(moves.rearrangements for moves in arm.run.moves)
