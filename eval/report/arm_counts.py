# SPDX-License-Identifier: Apache-2.0
"""What shows that an arm did what it is there for, as counts."""

from collections.abc import Sequence

from eval.config.schema import Arm, Config
from eval.report.view import ArmCounts
from eval.results.schema import ArmResult, ArmRun, Result


def arm_counts(arm: ArmResult, result: Result) -> ArmCounts:
    """Of one arm beside the others of its result."""
    identical = {
        f"identical, {task.name}": f"{task.identical_to_off} of {task.questions}"
        for task in arm.tasks
    } | {f"identical, {task}": "left out" for task in result.left_out}
    told = not is_stock(result, arm)
    activity = {
        "other outcomes": arm.other_outcomes() or "0",
        "layers committed": str(arm.layers_committed),
        "slots changed, a layer": _least_to_most(arm.slots_changed),
        "weight checks": str(arm.weight_checks),
        "weight mismatches": str(arm.weight_mismatches),
        "map checks": str(arm.map_checks),
        "map mismatches": str(arm.map_mismatches),
        "balancedness before": _ratio(arm.balancedness_before),
        "balancedness expected": _ratio(arm.balancedness_expected),
    }
    return ArmCounts(
        arm.name,
        {
            **identical,
            "rearrangements": str(arm.rearrangements) if told else _logged(arm),
            **{name: value if told else "-" for name, value in activity.items()},
            "tokens per second": f"{arm.tokens_per_second:.0f}",
            "seconds to start": f"{arm.start_seconds:.1f}",
            "seconds to answer": f"{arm.seconds:.1f}",
        },
    )


def rearrangements(config: Config, arm: Arm, run: ArmRun) -> str:
    """How many there were, as far as is known."""
    if config.is_stock(arm):
        return f"{run.logged_rearrangements} rearrangements begun, as vLLM's log says"
    return f"{run.rearrangements} rearrangements"


def is_stock(result: Result, run: ArmRun) -> bool:
    """Whether an arm has EPLB of vLLM alone, of which no event tells but a line of the log."""
    arm = next((arm for arm in result.config.arms if arm.name == run.name), None)
    return arm is not None and result.config.is_stock(arm)


def _logged(arm: ArmRun) -> str:
    return f"{arm.logged_rearrangements} begun (log)"


def _least_to_most(counts: Sequence[int]) -> str:
    if not counts:
        return "-"
    return "-".join(dict.fromkeys([str(min(counts)), str(max(counts))]))


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
