# SPDX-License-Identifier: Apache-2.0
"""Rules of a throughput run: was everything answered, did experts move, and does EPLB pay?"""

from collections.abc import Iterator, Sequence

from eval.config.schema import BASELINE, Arm, Config
from eval.judging.arms import outcome, plural
from eval.judging.ratios import (
    LEAST_ROUNDS,
    Estimate,
    difference,
    faster_than_off,
    ratio_of,
    share_of_gain,
)
from eval.results.schema import ArmRun, RuleResult
from eval.results.throughput import ThroughputWorkload

BALANCED = "balanced"
_INCREMENTAL = "-incremental"
WORTH = 1.05
"""Times as fast as ``off`` has perfect balance to be, for a share of its gain to be asked for."""
LEAST_SHARE = 0.8


def throughput_rules(
    config: Config, workload: ThroughputWorkload, arms: Sequence[ArmRun]
) -> Iterator[RuleResult]:
    """Apply every rule.

    Args:
        config: What was served.
        workload: What was asked.
        arms: That were measured; not all of ``config`` need be.
    """
    served = {arm.name: arm for arm in config.arms}
    for arm in arms:
        yield _answered(workload, arm)
        moving = moves_experts(config, served[arm.name])
        yield _rearrangements_began(arm) if moving else _no_rearrangements(arm)
    for name in (arm.name for arm in arms if arm.name.endswith(_INCREMENTAL)):
        for traffic in workload.traffics:
            if workload.skew == 0:
                yield _no_loss(workload, arms, name, traffic.name)
            yield _beats_stock(arms, name, traffic.name)
            yield from _share_of_gain(arms, name, traffic.name)


def moves_experts(config: Config, arm: Arm) -> bool:
    """Whether an arm has EPLB, and has not been told to leave experts where they began."""
    planning = (config.plugin_settings(arm) or {}).get("planning")
    stays = isinstance(planning, dict) and planning.get("rearrange") == "never"
    return arm.eplb is not None and not stays


def _answered(workload: ThroughputWorkload, arm: ArmRun) -> RuleResult:
    expected = workload.completions * len(workload.traffics) * workload.repeats
    whole = sum(one.whole for one in arm.throughput)
    # Arm `off` may have been asked beside several groups of others.
    groups = len({one.group for one in arm.throughput})
    return outcome(
        "answered",
        whole == expected * groups if arm.throughput else None,
        f"{whole} of {plural(expected * groups, 'completion')} with all tokens",
        limit="all, in every traffic and round",
        detectable="a single completion that is missing or short",
        arm=arm.name,
    )


def _began(arm: ArmRun) -> int:
    return max(arm.rearrangements_started, arm.logged_rearrangements)


def _rearrangements_began(arm: ArmRun) -> RuleResult:
    return outcome(
        "rearrangements_began",
        True if _began(arm) else None,
        f"{plural(_began(arm), 'rearrangement')} began in rounds that count",
        limit="at least 1",
        detectable="a load balancer that does nothing",
        arm=arm.name,
    )


def _no_rearrangements(arm: ArmRun) -> RuleResult:
    return outcome(
        "no_rearrangements",
        not _began(arm),
        f"{plural(_began(arm), 'rearrangement')} began in rounds that count",
        limit="none, without EPLB or with experts that stay where they began",
        detectable="a single rearrangement of which vLLM's log or an event tells",
        arm=arm.name,
    )


def _no_loss(
    workload: ThroughputWorkload, arms: Sequence[ArmRun], name: str, traffic: str
) -> RuleResult:
    found = ratio_of(list(faster_than_off(arms, name, traffic).values()))
    least = 1 - workload.most_loss
    return outcome(
        "no_loss",
        found.low >= least if found and found.enough else None,
        f"{traffic}: {_told(found, BASELINE)}{_width(found)}",
        limit=f"the interval excludes a loss of more than {workload.most_loss:.1%}",
        detectable=f"fewer than {least:.3f} times the tokens a second of {BASELINE}, and an "
        "interval too wide to exclude that",
        arm=name,
    )


def _beats_stock(arms: Sequence[ArmRun], name: str, traffic: str) -> RuleResult:
    stock = f"stock-{name.removesuffix(_INCREMENTAL)}"
    its = faster_than_off(arms, name, traffic)
    found = ratio_of(difference(its, faster_than_off(arms, stock, traffic)))
    return outcome(
        "beats_stock",
        found.mean > 1 if found and found.enough else None,
        f"{traffic}: {_told(found, stock)}",
        limit=f"on average more tokens a second than {stock}",
        detectable="a mean that is not above it; the interval says how sure that is",
        arm=name,
    )


def _share_of_gain(arms: Sequence[ArmRun], name: str, traffic: str) -> Iterator[RuleResult]:
    its, most = (faster_than_off(arms, one, traffic) for one in (name, BALANCED))
    rounds = sorted(its.keys() & most.keys())
    ceiling = ratio_of([most[one] for one in rounds])
    enough = ceiling is not None and ceiling.enough
    if ceiling is not None and enough and ceiling.mean < WORTH:
        return  # There is next to nothing to gain.
    saw = f"{traffic}, arm {BALANCED}: {_told(ceiling, BASELINE)}"
    share = 0.0
    if enough:
        share = share_of_gain([its[one] for one in rounds], [most[one] for one in rounds])
        saw += f", and {share:.0%} of that gain here"
    yield outcome(
        "share_of_gain",
        share >= LEAST_SHARE if enough else None,
        saw,
        limit=f"at least {LEAST_SHARE:.0%}, where perfect balance gains {WORTH - 1:.0%} or more",
        detectable="a placement that leaves more than a fifth of what balance is worth",
        arm=name,
    )


def _told(found: Estimate | None, other: str) -> str:
    if found is None or not found.enough:
        rounds = found.repeats if found else 0
        return f"{plural(rounds, 'round')} beside {other}, of {LEAST_ROUNDS} that are needed"
    return (
        f"{found.mean:.3f} times {other} ({found.low:.3f} to {found.high:.3f}, "
        f"{plural(found.repeats, 'round')})"
    )


def _width(found: Estimate | None) -> str:
    if found is None or not found.enough:
        return ""
    return f", an interval {found.high - found.low:.1%} wide"
