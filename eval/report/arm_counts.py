# SPDX-License-Identifier: Apache-2.0
"""What shows that an arm did what it is there for, as counts."""

from collections.abc import Callable, Sequence

from eval.config.schema import Arm, Config
from eval.report.view import ArmCounts
from eval.results.elsewhere import ServedElsewhere
from eval.results.schema import ArmResult, ArmRun, Result

_OTHER_OUTCOMES = "other outcomes"


def arm_counts(arm: ArmResult, result: Result) -> ArmCounts:
    """Of one arm beside the others of its result."""
    identical = {
        f"identical, {task.name}": f"{task.identical_to_off} of {task.questions}"
        for task in arm.tasks
    } | {f"identical, {task}": "left out" for task in result.left_out}
    told = _told(result, arm)
    activity = {
        _OTHER_OUTCOMES: arm.other_outcomes() or "0",
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
            "rearrangements": _finished(result, arm),
            **{name: value if told(name) else "-" for name, value in activity.items()},
            "tokens per second": _rounded(arm.tokens_per_second, 0),
            "seconds to start": _rounded(arm.start_seconds, 1),
            "seconds to answer": f"{arm.seconds:.1f}",
        },
    )


def rearrangements(config: Config, arm: Arm, run: ArmRun) -> str:
    """How many there were, as far as is known."""
    if run.elsewhere is not None:
        return _seen_elsewhere(run, run.elsewhere)
    if config.is_stock(arm):
        return f"{run.logged_rearrangements} rearrangements begun, as vLLM's log says"
    return f"{run.rearrangements} rearrangements"


def _seen_elsewhere(run: ArmRun, elsewhere: ServedElsewhere) -> str:
    if elsewhere.witness == "nothing":
        return "nothing tells of rearrangements"
    what = "events" if elsewhere.witness == "events" else "/metrics"
    return f"{run.rearrangements} rearrangements, by its {what}"


def is_stock(result: Result, run: ArmRun) -> bool:
    """Whether an arm has EPLB of vLLM alone, of which no event tells but a line of the log."""
    arm = next((arm for arm in result.config.arms if arm.name == run.name), None)
    return arm is not None and result.config.is_stock(arm)


def _told(result: Result, arm: ArmRun) -> Callable[[str], bool]:
    """Which of the counts are told of, by their names."""
    if is_stock(result, arm):
        return lambda _: False
    if arm.elsewhere is None or arm.elsewhere.witness == "events":
        return lambda _: True
    of_metrics = arm.elsewhere.witness == "metrics"
    return lambda name: of_metrics and name == _OTHER_OUTCOMES


def _finished(result: Result, arm: ArmRun) -> str:
    if arm.elsewhere is not None and arm.elsewhere.witness == "nothing":
        return "-"
    if is_stock(result, arm):
        return "-" if arm.elsewhere else f"{arm.logged_rearrangements} begun (log)"
    by_metrics = arm.elsewhere is not None and arm.elsewhere.witness == "metrics"
    return f"{arm.rearrangements}{' (metrics)' if by_metrics else ''}"


def _least_to_most(counts: Sequence[int]) -> str:
    if not counts:
        return "-"
    return "-".join(dict.fromkeys([str(min(counts)), str(max(counts))]))


def _rounded(value: float | None, digits: int) -> str:
    """A figure that a server elsewhere may lack."""
    return "-" if value is None else f"{value:.{digits}f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
