# SPDX-License-Identifier: Apache-2.0
"""That bounds cover what they say, and that the gate has the power that is claimed."""

import numpy as np
import pytest
from scipy.stats import beta, binom, multinomial

from eval.config.gate_section import Gate
from eval.config.schema import Config
from eval.judging.power import (
    Model,
    PairedTest,
    detectable_loss,
    most_lost,
    probability_not_passed,
    threshold_fails,
)
from eval.judging.statistics import (
    CONFIDENCE,
    Pairs,
    confidence_in,
    difference_p_value,
    largest_loss,
    loss_p_value,
    pair,
    smallest_loss,
)
from eval.judging.verdict import alpha_of_one_comparison
from tests.builders.harness import small_config


def pairs(lost: int, won: int, questions: int) -> Pairs:
    return Pairs(0, lost, won, questions - lost - won)


def test_answers_are_paired_in_order() -> None:
    counted = pair([True, True, False, False, True], [True, False, True, False, True])

    assert counted == Pairs(both=2, lost=1, won=1, neither=1)
    assert (counted.questions, counted.flips, counted.loss) == (5, 2, 0)


def test_answers_to_other_questions_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="2 answers cannot be paired with 1"):
        pair([True, True], [True])


@pytest.mark.parametrize(
    ("lost", "won", "p_value"),
    [(0, 0, 1), (1, 0, 1 / 2), (5, 0, 1 / 32), (5, 1, 7 / 64), (0, 9, 1), (34, 27, 0.2213)],
)
def test_mcnemar_is_exact_and_one_sided(lost: int, won: int, p_value: float) -> None:
    # The last one is a published pair of lm-eval runs.
    assert loss_p_value(pairs(lost, won, 1319)) == pytest.approx(p_value, abs=1e-4)


def test_the_two_sided_test_does_not_care_which_is_which() -> None:
    assert difference_p_value(pairs(9, 2, 99)) == difference_p_value(pairs(2, 9, 99))
    assert difference_p_value(pairs(9, 2, 99)) == pytest.approx(2 * loss_p_value(pairs(9, 2, 99)))
    assert difference_p_value(pairs(0, 0, 99)) == 1


@pytest.mark.parametrize("questions", [1, 48, 200, 1319])
def test_without_a_flip_the_bound_is_that_of_one_share(questions: int) -> None:
    exact = 1 - 0.05 ** (1 / questions)

    assert largest_loss(pairs(0, 0, questions)) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("lost", "won"), [(5, 0), (4, 0), (9, 2), (8, 2), (40, 22), (36, 24), (2, 2), (0, 7)]
)
def test_a_loss_is_shown_by_the_bound_when_mcnemar_shows_it(lost: int, won: int) -> None:
    shown = loss_p_value(pairs(lost, won, 200)) <= 1 - CONFIDENCE

    assert (smallest_loss(pairs(lost, won, 200)) > 0) == shown


@pytest.mark.parametrize(("lost", "won"), [(0, 6), (3, 3), (7, 0), (2, 20), (20, 20), (0, 0)])
def test_the_bound_is_that_of_the_melded_shares(lost: int, won: int) -> None:
    """Against a simulation of the paper's definition."""
    generator = np.random.default_rng(0)
    size, questions, flips = 400_000, 200, lost + won
    lost_share = beta.rvs(lost + 1, won, size=size, random_state=generator) if won else 1
    draws = [beta.rvs(flips + 1, questions - flips, size=size, random_state=generator)]
    if flips:
        draws.append(beta.rvs(flips, questions - flips + 1, size=size, random_state=generator))
    simulated = max(np.quantile(share * (2 * lost_share - 1), CONFIDENCE) for share in draws)

    assert largest_loss(pairs(lost, won, questions)) == pytest.approx(simulated, abs=2e-4)


def test_the_bound_also_holds_when_every_answer_flips() -> None:
    assert largest_loss(pairs(3, 0, 3)) == 1
    assert 0 < largest_loss(pairs(6, 4, 10)) < 1


@pytest.mark.parametrize("questions", [48, 200])
@pytest.mark.parametrize("flips", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("loss_share", [-1, 0, 0.5, 1])
def test_the_bound_covers_the_true_loss_at_least_as_often_as_it_says(
    questions: int, flips: float, loss_share: float
) -> None:
    """Exactly, over all possible counts."""
    loss = flips * loss_share
    chances = [(flips + loss) / 2, (flips - loss) / 2, 1 - flips]
    covered = missing = 1.0
    for count in range(int(binom.isf(1e-7, questions, flips)) + 1):
        for lost in range(count + 1):
            table = pairs(lost, count - lost, questions)
            chance = multinomial.pmf([lost, count - lost, questions - count], questions, chances)
            missing -= chance
            if confidence_in(table, loss) > CONFIDENCE:
                covered -= chance

    assert missing < 1e-6
    assert covered - missing >= CONFIDENCE


THREE_POINTS = Model(questions=1319, flips=0.05, loss=0.03)


def default_test(arms: int) -> PairedTest:
    """Of one arm among ``arms`` with the default gate."""
    named = [{"name": "off"}, *({"name": f"eplb{number}", "eplb": {}} for number in range(arms))]
    config = Config.model_validate(small_config(arms=named, gate={}))
    margin = config.gate.margin_points
    assert margin is not None
    return PairedTest(alpha_of_one_comparison(config), margin / 100)


@pytest.mark.parametrize("arms", [1, 2, 5])
def test_a_loss_of_three_points_fails_in_95_of_100_runs_of_1319_questions(arms: int) -> None:
    test = default_test(arms)

    assert probability_not_passed(test, THREE_POINTS) >= 0.95
    assert probability_not_passed(test._replace(margin=None), THREE_POINTS) >= 0.95


@pytest.mark.parametrize("arms", [1, 2, 5])
def test_no_loss_passes_in_99_of_100_runs_of_1319_questions(arms: int) -> None:
    one_arm = probability_not_passed(default_test(arms), THREE_POINTS._replace(loss=0))

    assert arms * one_arm <= 0.01


@pytest.mark.parametrize("questions", [200, 500, 1319])
@pytest.mark.parametrize("flips", [0.03, 0.08, 0.2])
def test_a_loss_of_the_margin_never_passes_more_often_than_5_in_100_runs(
    questions: int, flips: float
) -> None:
    model = Model(questions, flips, loss=0.03)

    assert probability_not_passed(default_test(2), model) >= 0.95


def test_simulated_runs_fare_as_computed() -> None:
    generator = np.random.default_rng(0)
    test, runs = default_test(2), 2000
    for loss in (0.0, 0.03):
        model = THREE_POINTS._replace(loss=loss)
        counts = generator.multinomial(
            model.questions, [(0.05 + loss) / 2, (0.05 - loss) / 2, 0.95], size=runs
        )
        tables, times = np.unique(counts[:, :2], axis=0, return_counts=True)
        caught = sum(
            int(number)
            for (lost, won), number in zip(tables.tolist(), times, strict=True)
            if loss_p_value(pairs(lost, won, 1319)) < test.alpha
            or 100 * largest_loss(pairs(lost, won, 1319)) > Gate().margin_points
        )
        assert caught / runs == pytest.approx(probability_not_passed(test, model), abs=0.01)


@pytest.mark.parametrize("flips", [0, 1, 9, 66])
def test_the_limit_used_for_power_is_the_one_that_judges(flips: int) -> None:
    test = PairedTest(0.005, 0.03)
    most = most_lost(test, 1319, flips)

    def passes(lost: int) -> bool:
        table = pairs(lost, flips - lost, 1319)
        return loss_p_value(table) >= test.alpha and largest_loss(table) <= 0.03

    assert most == flips or not passes(most + 1)
    assert passes(most)


def test_more_questions_detect_smaller_losses_and_too_few_detect_none() -> None:
    test = PairedTest(0.05)

    # 1.53 by the normal approximation, which is not exact.
    assert detectable_loss(test, Model(1319, 0.05)) == pytest.approx(0.016, abs=0.0005)
    few, many = (detectable_loss(test, Model(count, 0.05)) for count in (200, 500))
    assert few is not None and many is not None and few > many > 0.02
    assert detectable_loss(test, Model(4, 0.0)) is None


@pytest.mark.parametrize(
    ("questions", "accuracy", "threshold", "fails"),
    [(200, 0.3, 0.25, 0.051), (200, 0.25, 0.25, 0.47), (1319, 0.275, 0.25, 0.02)],
)
def test_a_gate_on_a_threshold_alone_sees_little(
    questions: int, accuracy: float, threshold: float, fails: float
) -> None:
    assert threshold_fails(questions, accuracy, threshold) == pytest.approx(fails, abs=0.006)
