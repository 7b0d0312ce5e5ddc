# SPDX-License-Identifier: Apache-2.0
"""Rules of a latency run: was there something to measure, and, if asked for, how slow was it?"""

from collections.abc import Iterator, Sequence

from eval.activity.agreement import Agreement
from eval.config.schema import BASELINE, Config
from eval.judging.arms import arm_to_judge, outcome, plural
from eval.judging.check_rules import maps, weights
from eval.results.latency import Distribution, LatencyWorkload
from eval.results.schema import ArmRun, RuleResult

_LEAST_TIMES = 100
"""Of fewer, one in a hundred is less than one."""


def latency_rules(
    config: Config, workload: LatencyWorkload, arms: Sequence[ArmRun]
) -> Iterator[RuleResult]:
    """Apply every rule.

    Args:
        config: What was served.
        workload: What was asked.
        arms: That were measured; not all of ``config`` need be.
    """
    served = {arm.name: arm for arm in config.arms}
    off = next((arm for arm in arms if arm.name == BASELINE), None)
    for arm in arms:
        configured = served[arm.name]
        yield _answers(workload, arm)
        if configured.eplb is None:
            yield no_rearrangements(arm)
            continue
        yield _rearrangements_began(arm)
        yield _step_times(arm)
        if workload.load != "steady" and not config.is_stock(configured):
            yield _slots_changed(arm)
        if checks_weights(config, arm.name):
            judged = arm_to_judge(config, configured, arm, [], Agreement(), None)
            yield from (weights(judged), maps(judged))
        elif workload.most_p99 is not None:
            yield _p99_between_tokens(arm, off, workload.most_p99)


def checks_weights(config: Config, name: str) -> bool:
    """Whether an arm compares weights after every commit, which takes time."""
    arm = next(arm for arm in config.arms if arm.name == name)
    return (config.plugin_settings(arm) or {}).get("check_weights") is True


def no_rearrangements(arm: ArmRun) -> RuleResult:
    """An arm without EPLB is no baseline if experts move in it."""
    seen = max(arm.rearrangements_started, arm.logged_rearrangements)
    return outcome(
        "no_rearrangements",
        not seen,
        f"{plural(seen, 'rearrangement')} began while completions were streamed",
        limit="none, in an arm without EPLB",
        detectable="a single rearrangement of which vLLM's log or an event tells",
        arm=arm.name,
    )


def _answers(workload: LatencyWorkload, arm: ArmRun) -> RuleResult:
    completions = arm.latency.completions if arm.latency else []
    # With a time limit, as many as were begun within it.
    asked = workload.streams if workload.completions is None else workload.completions
    asked = asked if workload.most_seconds is None else len(completions)
    whole = sum(tokens >= workload.tokens for tokens in completions)
    shortest = min(completions, default=0)
    short = f", the shortest has {shortest}" if whole < len(completions) else ""
    return outcome(
        "answers",
        whole == asked if completions else None,
        f"{whole} of {plural(asked, 'completion')} with all tokens{short}",
        limit=f"all, with {workload.tokens} tokens each",
        detectable="a single token that is missing",
        arm=arm.name,
    )


def _rearrangements_began(arm: ArmRun) -> RuleResult:
    began = arm.logged_rearrangements
    return outcome(
        "rearrangements",
        True if began else None,
        f"vLLM's log tells of {plural(began, 'rearrangement')} that began while completions were "
        "streamed",
        limit="at least 1",
        detectable="a load balancer that does nothing",
        arm=arm.name,
    )


def _slots_changed(arm: ArmRun) -> RuleResult:
    changed, finished = sum(arm.slots_changed), plural(arm.rearrangements, "rearrangement")
    return outcome(
        "slots_changed",
        True if changed else None,
        f"{plural(changed, 'slot')} got another expert in {finished}",
        limit="at least 1",
        detectable="a load that moves no expert",
        arm=arm.name,
    )


def _step_times(arm: ArmRun) -> RuleResult:
    times = arm.latency.state_manager if arm.latency else None
    timed = times.count if times else 0
    return outcome(
        "step_times",
        True if timed else None,
        f"{plural(timed, 'step')} timed that rearranged while all completions were under way",
        limit="at least 1",
        detectable="times that are not those of a rearrangement",
        arm=arm.name,
    )


def _p99_between_tokens(arm: ArmRun, off: ArmRun | None, most: float) -> RuleResult:
    its, baseline = _between_tokens(arm), _between_tokens(off)
    limit = f"at most {most:g} times that of arm {BASELINE}"
    enough = None
    if its is None or baseline is None:
        saw = f"fewer than {_LEAST_TIMES} times between tokens in arm {BASELINE} or here"
    else:
        enough = its.p99 <= most * baseline.p99
        saw = (
            f"{its.p99:.2f} ms, arm {BASELINE} {baseline.p99:.2f} ms: "
            f"{its.p99 / baseline.p99:.2f} times"
        )
    return outcome(
        "p99_between_tokens",
        enough,
        saw,
        limit=limit,
        detectable=f"one time in a hundred that is longer than {most:g} times arm {BASELINE}'s",
        arm=arm.name,
    )


def _between_tokens(arm: ArmRun | None) -> Distribution | None:
    times = arm.latency.between_tokens if arm and arm.latency else None
    return times if times is not None and times.count >= _LEAST_TIMES else None
