# SPDX-License-Identifier: Apache-2.0
"""Loads that were drawn or counted elsewhere, as recordings, and what policies make of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vllm_eplb_plugin.bench.loads.as_recording import (
    as_recording,
    drawn_recording,
    recorded_domains,
)
from vllm_eplb_plugin.bench.options import LOADS_VARIABLE
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import Shape, parse_shape
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.simulation.candidate import parse_candidate
from vllm_eplb_plugin.simulation.combination import Grid
from vllm_eplb_plugin.simulation.playing import play
from vllm_eplb_plugin.simulation.result import simulated

WINDOWS = 11
"""Of each domain."""


def test_drawn_windows_are_those_of_a_recording() -> None:
    loads = np.arange(24.0).reshape(3, 2, 4)
    made = as_recording(Shape("tiny", 2, 4, 2, ranks=2), loads, 7)
    assert [window.load.tolist() for window in made.windows] == loads.astype(int).tolist()
    assert (made.served.shape.slots, made.served.expert_bytes) == (6, (7, 7))


def test_a_load_that_is_none_is_refused_and_one_seed_gives_one_load() -> None:
    shape = Shape("tiny", 2, 8, 0, ranks=2)
    with pytest.raises(BenchError, match="slow"):
        drawn_recording(shape, "quick", 3, 1000, 1)
    one, again = (drawn_recording(shape, "slow", 3, 1000, 1) for _ in range(2))
    for first, second in zip(one.windows, again.windows, strict=True):
        assert (first.load == second.load).all()


def test_the_benchmark_says_what_simulating_takes() -> None:
    command = ["bench", "simulation", "--shape", "2x16+8/1x1x4", "--windows", "5"]
    result = CliRunner().invoke(main, command, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "simulated in" in result.stdout
    assert "incremental" in result.stdout


@pytest.mark.parametrize("ranks", [2, 8, 16])
def test_on_counts_of_olmoe_incremental_is_as_balanced_with_a_third_of_the_moves(
    ranks: int,
) -> None:
    folder = os.environ.get(LOADS_VARIABLE)
    if not folder:
        pytest.skip(f"{LOADS_VARIABLE} names no folder with counts of OLMoE's experts")
    shape = parse_shape(f"3x64+16/1x1x{ranks}")
    [recording] = recorded_domains(Path(folder), shape, WINDOWS, 1_000_000, 1)
    grid = Grid([parse_candidate("default"), parse_candidate("incremental")])
    played = [play(recording, one) for one in grid.combinations(recording)[0]]
    found = simulated(recording, played)
    default, incremental = found.rows
    assert found.changes == [WINDOWS * domain for domain in range(1, 6)]
    assert incremental.as_served > default.as_served - 0.005
    assert 3 * incremental.experts < default.experts
    by_default, by_incremental = (
        [done.experts for done in one.rearrangements if done.after in found.changes]
        for one in played
    )
    assert all(
        2 * few < many for few, many in zip(by_incremental, by_default, strict=True)
    )  # at changes of domain
