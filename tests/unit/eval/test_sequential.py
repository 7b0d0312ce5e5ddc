# SPDX-License-Identifier: Apache-2.0
"""That looking again and again costs no more error than is allowed, and few questions."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise, product
from math import comb

import numpy as np
import pytest
from scipy.stats import multinomial

from eval.judging.expected_questions import Chances, excluded_at, expected_questions
from eval.judging.sequential import (
    EVERY,
    HALF,
    Design,
    allowed,
    capital,
    find,
    largest_loss,
    looks,
    loss_shown,
    margin_excluded,
    tables,
)
from eval.judging.statistics import CONFIDENCE, Pairs, confidence_in, loss_p_value
from scripts.simulate_enough import counts_by_chance, simulated

GSM8K = 1319
RUNS = 2000


def at_looks(most: int, lost: Sequence[int], flips: Sequence[int]) -> list[Pairs]:
    """Counts at the first looks, of which both numbers grow."""
    asked = looks(most, most)
    return [
        Pairs(0, one, all_ - one, asked[number] - all_)
        for number, (one, all_) in enumerate(zip(lost, flips, strict=True))
    ]


def test_it_is_looked_after_each_batch_and_after_the_last_question() -> None:
    assert looks(500, 250) == [100, 200]
    assert looks(500, 500) == [100, 200, 300, 400, 500]
    assert looks(1319, 1319)[-3:] == [1200, 1300, 1319]
    assert looks(20, 19) == []
    assert looks(20, 20) == [20]


def test_answers_are_counted_from_the_first_at_each_look() -> None:
    off, arm = [True] * 200, [True] * 90 + [False] * 20 + [True] * 90

    assert tables(off, arm, 1319) == [Pairs(90, 10, 0, 0), Pairs(180, 20, 0, 0)]


def plain_limits(design: Design, flips: Sequence[int]) -> list[int]:
    """The fewest lost answers that show a loss at each look, in fractions and by counting."""
    ways = {0: Fraction(1)}
    spent, limits = Fraction(0), []
    for asked, (before, after) in zip(
        looks(design.most, design.most), pairwise([0, *flips]), strict=False
    ):
        more = after - before
        next_ways: dict[int, Fraction] = {}
        for (lost, share), heads in product(ways.items(), range(more + 1)):
            chance = share * Fraction(comb(more, heads), 2**more)
            next_ways[lost + heads] = next_ways.get(lost + heads, Fraction(0)) + chance
        budget = Fraction(allowed(design, asked)) - spent
        limit = max(next_ways) + 1
        while sum(share for lost, share in next_ways.items() if lost >= limit - 1) < budget:
            limit -= 1
        spent += sum((share for lost, share in next_ways.items() if lost >= limit), Fraction(0))
        ways = {lost: share for lost, share in next_ways.items() if lost < limit}
        limits.append(limit)
    return limits


@pytest.mark.parametrize("seed", range(20))
def test_the_limits_are_those_of_plain_counting(seed: int) -> None:
    generator = np.random.default_rng(seed)
    most = int(generator.integers(150, 1319))
    design = Design(float(generator.choice([0.4, 0.05, 0.005])), 0.03, most)
    flips = np.cumsum(generator.integers(0, 14, size=len(looks(most, most)))).tolist()
    limits = plain_limits(design, flips)
    below = [limit - 1 for limit in limits]

    for look, limit in enumerate(limits):
        counts = [*below[:look], limit]
        if limit <= flips[look]:
            assert loss_shown(design, at_looks(most, counts, flips[: look + 1])) == look
    assert loss_shown(design, at_looks(most, below, flips)) is None


@pytest.mark.parametrize("alpha", [0.4, 0.1, 0.01])
@pytest.mark.parametrize("more", [(4, 0, 5, 3), (1, 1, 6, 4), (12,), (0, 0, 0, 12)])
def test_without_a_loss_one_is_shown_no_more_often_than_half_of_alpha_allows(
    alpha: float, more: tuple[int, ...]
) -> None:
    """Every way in which so many coins can fall, however many there are at each look."""
    most = EVERY * len(more)
    design, flips = Design(alpha, None, most), [*accumulate(more)]
    shown = 0
    for coins in product([0, 1], repeat=flips[-1]):
        lost = [sum(coins[:count]) for count in flips]
        shown += loss_shown(design, at_looks(most, lost, flips)) is not None

    assert shown / 2 ** flips[-1] <= alpha / 2
    if alpha > 0.05:
        assert shown


def test_with_one_look_only_a_loss_is_what_mcnemar_shows() -> None:
    design = Design(0.02, None, EVERY)
    for flips in range(30):
        for lost in range(flips + 1):
            pairs = Pairs(0, lost, flips - lost, EVERY - flips)
            assert (loss_shown(design, [pairs]) == 0) == (loss_p_value(pairs) < 0.01)


@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.03, 0.5])
@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 3, 90), (2, 5, 400), (40, 20, 1000)])
def test_betting_on_less_than_a_loss_gains_nothing_in_the_mean_where_it_is_one(
    margin: float, counts: tuple[int, int, int]
) -> None:
    lost, won, same = counts

    def gain(loss: float) -> float:
        flips = max(abs(loss), 0.25)
        chances = (flips + loss) / 2, (flips - loss) / 2, 1 - flips
        after = [
            Pairs(0, lost + (which == 0), won + (which == 1), same + (which == 2))
            for which in range(3)
        ]
        mean = sum(
            chance * float(capital(pairs, margin))
            for chance, pairs in zip(chances, after, strict=True)
        )
        return mean / float(capital(Pairs(0, lost, won, same), margin))

    assert capital(Pairs(0, 0, 0, 0), margin) == pytest.approx(1)
    assert gain(margin) == pytest.approx(1)
    assert gain(margin + 0.01) < 1 < gain(margin - 0.01)


@pytest.mark.parametrize("arms", [1, 2, 5])
def test_of_simulated_runs_few_fail_without_a_loss_and_most_with_one_in_fewer_questions(
    arms: int,
) -> None:
    design = Design(0.01 / arms, 0.03, GSM8K)
    ends = {loss: simulated(design, 0.05, loss, RUNS) for loss in (0.0, 0.03)}

    failed = {loss: sum(end.what == "loss" for end in found) for loss, found in ends.items()}
    assert arms * failed[0.0] <= 0.01 * RUNS
    assert failed[0.03] >= 0.95 * RUNS
    assert sum(end.what == "no loss" for end in ends[0.0]) >= 0.98 * RUNS
    for found in ends.values():
        assert np.mean([end.questions for end in found]) < 0.65 * GSM8K


@pytest.mark.parametrize("most", [250, 500])
@pytest.mark.parametrize("flips", [0.03, 0.05, 0.1])
def test_a_loss_of_the_margin_is_excluded_in_5_of_100_runs_at_most(most: int, flips: float) -> None:
    """Exactly, over all looks and counts, in plain sums of probabilities."""
    design, loss = Design(0.01, 0.03, most), 0.03
    chances = [(flips + loss) / 2, (flips - loss) / 2, 1 - flips]
    going_on = {(0, 0): 1.0}
    excluded = asked = 0.0
    for look in looks(most, most):
        size = look - int(asked)
        steps = [
            (lost, won, float(multinomial.pmf([lost, won, size - lost - won], size, chances)))
            for lost in range(24)
            for won in range(18)
        ]
        after: dict[tuple[int, int], float] = {}
        for (lost, won), share in going_on.items():
            if share > 1e-9:
                for more, gained, chance in steps:
                    key = lost + more, won + gained
                    after[key] = after.get(key, 0.0) + share * chance
        asked = look
        seen = {key: Pairs(0, *key, look - sum(key)) for key in after if sum(key) <= look}
        stops = {key for key, pairs in seen.items() if margin_excluded(design, [pairs]) == 0}
        excluded += sum(after[key] for key in stops)
        going_on = {key: share for key, share in after.items() if key not in stops}

    assert 0.01 < excluded + 1e-6 <= 1 - CONFIDENCE


@pytest.mark.parametrize("flips", [0.03, 0.05, 0.1])
def test_betting_alone_passes_a_loss_of_the_margin_half_as_often(flips: float) -> None:
    chances = Chances((flips + 0.03) / 2, (flips - 0.03) / 2)

    assert 0 < sum(share for _, share in excluded_at(0.03, GSM8K, chances)) <= HALF


def test_at_the_last_question_the_bound_of_one_look_counts_too() -> None:
    design = Design(0.01, 0.03, 500)
    close = Pairs(0, 8, 3, 489)

    assert confidence_in(close, 0.03) >= 1 - HALF
    assert capital(close, 0.03) < 1 / HALF
    assert margin_excluded(design, [close]) == 0
    assert margin_excluded(design._replace(most=501), [close]) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_loss_is_excluded_where_the_largest_that_is_not_is_smaller(seed: int) -> None:
    generator = np.random.default_rng(seed)
    seen = counts_by_chance(generator, 0.04, 0.005, 500)[: int(generator.integers(1, 6))]
    bound = largest_loss(seen, 500)

    for margin, excluded in ((bound + 1e-6, True), (bound - 1e-6, False)):
        found = margin_excluded(Design(0.01, margin, 500), seen)
        assert (found is not None) == excluded
    assert largest_loss([], 500) == 1


def test_a_loss_counts_whenever_it_was_shown() -> None:
    design = Design(0.01, 0.03, GSM8K)
    passing = Pairs(200, 0, 0, 0)
    losing = Pairs(280, 20, 0, 0)

    assert find(design, [passing]) == ("no loss", 200)
    assert find(design, [passing, losing]) == ("loss", 300)
    assert find(design, [losing, passing._replace(both=1000)]) == ("loss", 300)
    assert find(design, [Pairs(100, 0, 0, 0)]) == ("undecided", None)


@pytest.mark.parametrize("flips", [0.0, 0.01, 0.05])
def test_as_many_questions_are_asked_as_are_expected(flips: float) -> None:
    ends = simulated(Design(1e-12, 0.03, 500), flips, 0.0, 1000)
    asked = [end.questions for end in ends]

    expected = expected_questions(0.03, 500, flips)
    assert np.mean(asked) == pytest.approx(expected, abs=3 * np.std(asked) / 1000**0.5 + 1e-9)
