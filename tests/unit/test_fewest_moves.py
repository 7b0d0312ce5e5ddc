# SPDX-License-Identifier: Apache-2.0
"""How far the incremental policy is from the fewest moves that reach the same balance."""

import numpy as np
import pytest

from tests.builders.drawn_problems import Draws
from tests.builders.fewest_moves import fewest_received
from vllm_eplb_plugin.planning.costs import costs_of, rank_loads
from vllm_eplb_plugin.planning.policies.default import Default
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Problem

SIZES = [(12, 4), (16, 0), (16, 4), (16, 8)]
"""Logical and redundant experts of a layer on four ranks."""


def drifted(experts: int, redundant: int, seed: int, new: int) -> Problem:
    """One layer that was planned by the default policy, and since then drifted by ``new`` %."""
    draws = Draws(seed)
    before, fresh = ([[100.0 + draws.below(900) for _ in range(experts)]] for _ in range(2))
    first = np.arange(experts + redundant)[None] % experts
    old = Default()(Problem(np.array(before), first, 4))
    return Problem((np.array(before) * (100 - new) + np.array(fresh) * new) / 100, old, 4)


@pytest.fixture(scope="module")
def received() -> np.ndarray:
    """``[problems, 3]``: what incremental, an exact solver and the default policy receive."""
    rows = []
    for experts, redundant in SIZES:
        for seed, new in ((0, 10), (1, 30), (2, 100)):
            problem = drifted(experts, redundant, seed, new)
            plan = Incremental(0.98, 0.0)(problem)
            highest = rank_loads(problem.load, plan, 4).max()
            fewest = fewest_received(problem, highest * (1 + 1e-9))
            ways = (plan, Default()(problem))
            mine, default = (int(costs_of(problem, way).received.sum()) for way in ways)
            rows.append((mine, fewest, default))
    print("incremental, fewest, default:", rows, np.sum(rows, axis=0))
    return np.array(rows)


def test_no_plan_beats_what_is_proven_to_be_the_fewest(received: np.ndarray) -> None:
    assert (received[:, 0] >= received[:, 1]).all()


def test_incremental_is_near_the_fewest_and_the_default_far_from_it(received: np.ndarray) -> None:
    mine, fewest, default = received.sum(axis=0)
    assert mine <= 1.5 * fewest
    assert (received[:, 0] - received[:, 1]).max() <= 2
    assert default >= 4 * fewest
