# SPDX-License-Identifier: Apache-2.0
"""Does EPLB pay: estimates over repeats, and the rules that go by them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from eval.commands.latency_model import SHAPES, ShapeName
from eval.judging.ratios import difference, estimate, faster_than_off, ratio_of, share_of_gain
from eval.judging.throughput_rules import throughput_rules
from eval.report.measured import repeat_command
from eval.report.throughput import throughput_conclusions, throughput_tables
from eval.results.schema import Result, RuleResult
from tests.builders.throughput import DECODE, measurement, throughput_result

OFF = [1000.0, 1100.0, 900.0]


def times(factor: float, noise: float = 0.0) -> list[float]:
    """Rounds that are so many times as fast as ``off``, give or take."""
    return [rate * factor * (1 + noise * sign) for rate, sign in zip(OFF, (-1, 0, 1), strict=True)]


def rules(result: Result) -> dict[tuple[str, str], RuleResult]:
    assert result.throughput is not None
    found = throughput_rules(result.config, result.throughput, result.arms)
    return {(rule.arm or "", rule.rule): rule for rule in found}


def judged(rates: Mapping[str, Sequence[float]], rule: str, **more: Any) -> RuleResult | None:
    return rules(throughput_result(rates, **more)).get(("async-incremental", rule))


def test_an_interval_is_that_of_student() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None and found.enough
    half = 4.302652729911275 / math.sqrt(3)  # 97.5 % of t with two degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))


@pytest.mark.parametrize(("values", "enough"), [([1.0], False), ([1.0, 2.0], False)])
def test_fewer_than_three_repeats_are_not_enough(values: list[float], enough: bool) -> None:
    found = estimate(values)
    assert found is not None and found.enough is enough
    assert estimate([]) is None and ratio_of([]) is None


def test_a_single_repeat_excludes_nothing() -> None:
    found = ratio_of([math.log(1.2)])
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((1.2, 0, math.inf))


def test_ratios_are_averaged_by_their_logarithms() -> None:
    found = ratio_of([math.log(2), math.log(0.5), 0.0])
    assert found is not None
    assert found.mean == pytest.approx(1)
    assert found.low * found.high == pytest.approx(1)


def test_rounds_are_paired_so_that_what_hits_all_arms_is_no_difference() -> None:
    logs = faster_than_off(throughput_result({"off": OFF, "async": times(1.1)}).arms,
                           "async", DECODE.name)  # fmt: skip
    assert list(logs.values()) == pytest.approx([math.log(1.1)] * 3, rel=1e-2)
    assert difference({1: 3.0, 2: 5.0}, {2: 1.0, 3: 1.0}) == [4.0]


def test_an_arm_is_compared_with_off_as_it_was_beside_it() -> None:
    result = throughput_result({"off": [100], "warm": [150]})
    off, warm = result.arms
    beside = measurement(1, 300, group=2)
    off = off.model_copy(update={"throughput": [*off.throughput, beside]})
    late = warm.model_copy(update={"throughput": [measurement(1, 150, group=2)]})
    elsewhere = warm.model_copy(update={"throughput": [measurement(1, 150, group=3)]})
    for arm, ratio in ((warm, 1.5), (late, 0.5), (elsewhere, 1.5)):
        (log,) = faster_than_off([off, arm], "warm", DECODE.name).values()
        assert math.exp(log) == pytest.approx(ratio)


def test_a_share_of_a_gain_is_one_of_logarithms() -> None:
    assert share_of_gain([math.log(1.1)], [math.log(1.21)]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("factor", "noise", "verdict"),
    [
        (1.0, 0.001, "passed"),
        (0.98, 0.001, "passed"),
        (0.96, 0.001, "failed"),
        # The mean is no loss, but the interval does not exclude one.
        (1.0, 0.05, "failed"),
    ],
)
def test_a_loss_has_to_be_excluded_on_balanced_traffic(
    factor: float, noise: float, verdict: str
) -> None:
    rates = {"off": OFF, "async-incremental": times(factor, noise)}
    found = judged(rates, "no_loss", skew=0.0)
    assert found is not None and found.verdict == verdict
    assert "an interval" in found.saw and "wide" in found.saw
    assert judged(rates, "no_loss", skew=0.5) is None


def test_the_loss_that_is_allowed_can_be_another() -> None:
    rates = {"off": OFF, "async-incremental": times(0.96, 0.001)}
    found = judged(rates, "no_loss", skew=0.0, most_loss=0.05)
    assert found is not None and found.verdict == "passed"


@pytest.mark.parametrize(("stock", "verdict"), [(0.99, "passed"), (1.01, "failed")])
def test_incremental_has_to_beat_vllm_s_own(stock: float, verdict: str) -> None:
    rates = {"off": OFF, "stock-async": times(stock), "async-incremental": times(1.0)}
    found = judged(rates, "beats_stock")
    assert found is not None and found.verdict == verdict
    assert f"{1 / stock:.3f} times stock-async" in found.saw


@pytest.mark.parametrize(
    ("balanced", "incremental", "verdict"),
    [
        (1.10, 1.09, "passed"),
        (1.10, 1.07, "failed"),
        (1.10, 0.90, "failed"),
        (1.04, 0.90, None),
        (0.90, 1.00, None),
    ],
)
def test_most_of_what_balance_is_worth_has_to_be_gained_where_it_is_worth_something(
    balanced: float, incremental: float, verdict: str | None
) -> None:
    rates = {
        "off": OFF,
        "balanced": times(balanced),
        "async-incremental": times(incremental),
    }
    found = judged(rates, "share_of_gain")
    assert (found and found.verdict) == verdict


@pytest.mark.parametrize("rule", ["no_loss", "beats_stock", "share_of_gain"])
@pytest.mark.parametrize("rounds", [0, 2])
def test_too_few_rounds_or_a_missing_arm_are_no_evidence(rule: str, rounds: int) -> None:
    rates: dict[str, Sequence[float]] = {"async-incremental": OFF}
    if rounds:
        others = {"off": OFF, "stock-async": OFF, "balanced": times(2)}
        rates = {name: rate[:rounds] for name, rate in {**others, **rates}.items()}
    found = judged(rates, rule, skew=0.0, repeats=rounds or 3)
    assert found is not None and found.verdict == "not tested"
    assert f"{rounds} rounds beside" in found.saw


@pytest.mark.parametrize(
    ("moved", "broken"),
    [
        (["stock-async", "async-incremental"], []),
        (["stock-async"], [("async-incremental", "rearrangements_began", "not tested")]),
        (
            ["off", "stock-async", "async-incremental", "warm"],
            [("off", "no_rearrangements", "failed"), ("warm", "no_rearrangements", "failed")],
        ),
    ],
)
def test_experts_move_in_arms_with_eplb_alone_and_not_where_they_are_to_stay(
    moved: list[str], broken: list[tuple[str, str, str]]
) -> None:
    names = ("off", "stock-async", "async-incremental", "warm")
    found = rules(throughput_result(dict.fromkeys(names, OFF), moved=moved))
    told = [
        (arm, rule, one.verdict)
        for (arm, rule), one in found.items()
        if "rearrangements" in rule and one.verdict != "passed"
    ]
    assert told == broken


def test_a_completion_that_is_short_fails() -> None:
    result = throughput_result({"off": OFF, "async": OFF})
    off, other = result.arms
    assert rules(result)["async", "answered"].verdict == "passed"
    short = [one.model_copy(update={"whole": 7}) for one in other.throughput[:1]]
    cut = other.model_copy(update={"throughput": [*short, *other.throughput[1:]]})
    broken = result.model_copy(update={"arms": [off, cut]})
    assert rules(broken)["async", "answered"].verdict == "failed"
    # A round that is missing is one of completions that are.
    fewer = other.model_copy(update={"throughput": other.throughput[1:]})
    assert rules(result.model_copy(update={"arms": [off, fewer]}))["async", "answered"].verdict == (
        "failed"
    )


def test_figures_are_set_beside_each_other() -> None:
    rates = {"off": OFF, "balanced": times(1.2), "async-incremental": times(1.1)}
    result = throughput_result(rates)
    told = [
        one.model_copy(update={"balancedness": 0.9, "experts_received": 3, "bytes_received": 2048})
        for one in result.arms[2].throughput
    ]
    moved = result.arms[2].model_copy(update={"throughput": told})
    result = result.model_copy(update={"arms": [*result.arms[:2], moved]})
    (table,) = throughput_tables(result)
    rows = {row.heading: row.cells for row in table.rows()}
    assert rows["tokens a second"][0] == "1,000 ± 248"
    assert rows["times off"][0] == "-"
    assert rows["times off"][2] == "1.100"
    assert rows["95 % interval"][2] == "1.100 to 1.100"
    assert rows["first token, p99"] == ["40.0"] * 3
    assert rows["balancedness as served"] == ["-", "-", "0.900"]
    assert (rows["experts received"][2], rows["weights received"][2]) == ("9", "6.0 KiB")
    lines = list(throughput_conclusions(result))
    assert lines[0].startswith("decode-switching: perfect balance is worth +20.0%")
    assert not any("One arm was measured after the other" in line for line in lines)


def test_arms_that_were_not_up_together_are_told_of() -> None:
    result = throughput_result({"off": OFF, "async": OFF}, servers_at_once=1)
    assert any(
        "One arm was measured after the other" in line for line in throughput_conclusions(result)
    )


@pytest.mark.parametrize(
    ("field", "who"), [("asking", "The harness itself"), ("front_end", "A server's front end")]
)
@pytest.mark.parametrize(("share", "told"), [(None, False), (0.6, False), (0.9, True)])
def test_who_may_be_what_was_measured_is_told_of(
    field: str, who: str, share: float | None, told: bool
) -> None:
    result = throughput_result({"off": OFF})
    (off,) = result.arms
    found = [one.model_copy(update={field: share or 0.0}) for one in off.throughput]
    result = result.model_copy(update={"arms": [off.model_copy(update={"throughput": found})]})
    lines = list(throughput_conclusions(result))
    assert any(f"{who} kept up to 0.90 cores busy" in line for line in lines) is told


def test_a_command_that_repeats_a_run_says_what_was_asked_and_of_which_model() -> None:
    usual = throughput_result({"off": OFF, "async": OFF})
    command = repeat_command(usual)
    assert "throughput --arm off --arm async --traffic decode --load switching" in command
    assert "--shape wide --moe-layers 58" in command and "--skew 0.5 --tokens 32" in command
    assert "--servers-at-once 6 --graphs --interval 100 --most-loss 3" in command
    assert usual.throughput is not None
    qwen3 = usual.throughput.model_copy(update={"shape": SHAPES[ShapeName.qwen3_30b]})
    command = repeat_command(usual.model_copy(update={"throughput": qwen3}))
    assert "--shape qwen3-30b --moe-layers 48 --experts 128 --redundant 16" in command
