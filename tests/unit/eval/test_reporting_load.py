# SPDX-License-Identifier: Apache-2.0
"""Loads and placements of a report, against the plugin's own and plain counting."""

import numpy as np
import pytest
import torch

from eval.activity.placements import balancedness, count_replicas, rank_loads, replicas_by_rank
from eval.report.layers import heat_map
from vllm_eplb_plugin.placement import balance, maps

LAYERS, EXPERTS, RANKS, SLOTS = 5, 12, 4, 16


@pytest.mark.parametrize("seed", range(5))
def test_rank_loads_and_balancedness_are_the_plugins(seed: int) -> None:
    generator = np.random.default_rng(seed)
    placement = generator.integers(-1, EXPERTS, (LAYERS, SLOTS))
    load = generator.integers(0, 1000, (LAYERS, EXPERTS)).astype(float)
    tensors = torch.from_numpy(load), torch.from_numpy(placement)

    by_rank = rank_loads(load, placement, RANKS)

    assert by_rank == pytest.approx(balance.rank_loads(*tensors, RANKS).numpy())
    assert balancedness(by_rank) == pytest.approx(balance.balancedness(*tensors, RANKS))
    counted = maps.count_replicas(tensors[1], EXPERTS).numpy()
    assert (count_replicas(placement, EXPERTS) == counted).all()


def test_no_load_is_balanced() -> None:
    assert balancedness(np.zeros((2, 3))) == 1.0


def test_replicas_are_counted_on_each_rank() -> None:
    slots = np.array([0, 1, 0, 2, 2, -1])

    assert replicas_by_rank(slots, experts=3, ranks=2).tolist() == [[2, 1, 0], [0, 0, 2]]


def test_a_heat_map_has_a_path_for_each_number_of_replicas_and_one_stroke_for_neighbours() -> None:
    replicas = np.zeros((2, 100), dtype=int)
    replicas[0, 10:15] = 1
    replicas[1, 99] = 7

    drawing = heat_map(replicas)

    assert drawing == '<path class="r1" d="M10 0.5h5"/><path class="r3" d="M99 1.5h1"/>'
