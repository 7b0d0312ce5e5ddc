# SPDX-License-Identifier: Apache-2.0
"""When a plan is made between vLLM's intervals."""

import numpy as np
import pytest

from vllm_eplb_plugin.planning.problem import Floats
from vllm_eplb_plugin.planning.smoothing import Smoothing
from vllm_eplb_plugin.planning.triggers import Rule, Watch, balancedness, changed_share

PLACEMENT = np.array([[0, 1, 2, 3]])
EVEN = np.array([[100.0, 100, 100, 100]])
SKEWED = np.array([[200.0, 100, 50, 50]])  # ranks of two slots: 300 and 100


def drawn(tokens: int, seed: int, flat: bool = True) -> Floats:
    shares = np.full(64, 1 / 64) if flat else np.arange(1, 65) / np.arange(1, 65).sum()
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.array([generator.multinomial(tokens, shares) for _ in range(4)], np.float64)


def test_balancedness_is_mean_over_max_rank_load() -> None:
    assert balancedness(SKEWED, PLACEMENT, 2) == pytest.approx(200 / 300)
    assert balancedness(np.zeros((1, 4)), PLACEMENT, 2) is None


def test_it_plans_when_balancedness_has_fallen_and_not_before() -> None:
    watch = Watch(Rule(below=0.9))
    assert watch.look(EVEN, PLACEMENT, 2) is None
    assert watch.look(SKEWED, PLACEMENT, 2) == "balancedness"


def test_it_does_not_plan_again_for_what_planning_has_not_reached() -> None:
    watch = Watch(Rule(below=0.9))
    watch.planned(SKEWED)
    assert [watch.look(SKEWED, PLACEMENT, 2) for _ in range(3)] == [None] * 3
    worse = np.array([[300.0, 100, 0, 0]])
    assert watch.look(worse, PLACEMENT, 2) == "balancedness"
    watch.planned(worse)
    assert watch.look(worse, PLACEMENT, 2) is None


def test_it_plans_at_once_for_another_load() -> None:
    watch = Watch(Rule(changed=0.2))
    assert watch.look(EVEN, PLACEMENT, 2) is None
    watch.planned(EVEN)
    assert watch.look(EVEN * 0.1, PLACEMENT, 2) is None
    other = np.array([[200.0, 0, 200, 0]])
    assert watch.look(other, PLACEMENT, 2) == "changed_load"
    watch.planned(other)
    assert watch.look(other, PLACEMENT, 2) is None


def test_a_recorded_load_that_experts_begin_by_is_that_of_the_last_plan() -> None:
    recorded = EVEN * 1000
    watch = Watch(Rule(below=0.9, changed=0.2))
    watch.began(recorded)
    assert watch.look(EVEN, PLACEMENT, 2) is None
    assert watch.look(np.array([[200.0, 0, 200, 0]]), PLACEMENT, 2) == "changed_load"


def test_what_a_placement_by_a_recorded_load_has_not_reached_a_plan_may_reach() -> None:
    watch = Watch(Rule(below=0.9))
    watch.began(EVEN)
    assert watch.look(SKEWED, PLACEMENT, 2) == "balancedness"
    watch.planned(SKEWED)
    assert watch.look(SKEWED, PLACEMENT, 2) is None


def test_a_plan_from_no_load_forgets_nothing() -> None:
    watch = Watch(Rule(changed=0.2))
    watch.planned(EVEN)
    watch.planned(EVEN * 0)
    assert watch.look(np.array([[200.0, 0, 200, 0]]), PLACEMENT, 2) == "changed_load"


def test_no_load_is_no_reason() -> None:
    watch = Watch(Rule(below=0.9, changed=0.1))
    watch.planned(EVEN)
    assert watch.look(np.zeros((1, 4)), PLACEMENT, 2) is None


@pytest.mark.parametrize("tokens", [200, 2_000, 200_000])
def test_chance_is_no_change(tokens: int) -> None:
    assert changed_share(drawn(tokens, 1), drawn(tokens, 2)) < 0.1
    assert changed_share(drawn(tokens, 1), drawn(tokens, 2, flat=False)) > 0.18


def test_the_changed_share_is_what_is_on_other_experts() -> None:
    before, load = np.array([[1e9, 0.0, 3e9, 0]]), np.array([[1e9, 1e9, 2e9, 0]])
    assert changed_share(load, before) == pytest.approx(0.25, abs=1e-3)
    assert changed_share(np.zeros((1, 4)), before) == 0


def test_smoothing_weighs_earlier_windows() -> None:
    smoothing = Smoothing(0.5, 1000)
    first, second = np.array([[100.0, 0]]), np.array([[0.0, 200]])
    assert smoothing.smooth(first).tolist() == [[100, 0]]
    assert smoothing.smooth(second).tolist() == [[100, 100]]
    assert smoothing.smooth(second).tolist() == [[50, 150]]
    smoothing.forget()
    assert smoothing.smooth(first).tolist() == [[100, 0]]


def test_a_window_with_enough_tokens_is_used_as_it_is() -> None:
    smoothing = Smoothing(0.5, 100)
    smoothing.smooth(np.array([[100.0, 0]]))
    assert smoothing.smooth(np.array([[0.0, 101]])).tolist() == [[0, 101]]


def test_a_layer_without_tokens_forgets_nothing() -> None:
    smoothing = Smoothing(0.5, 100)
    smoothing.smooth(np.array([[50.0, 50]]))
    assert smoothing.smooth(np.zeros((1, 2))).tolist() == [[0, 0]]
    assert smoothing.smooth(np.array([[0.0, 100]])).tolist() == [[25, 75]]
