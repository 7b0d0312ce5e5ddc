# SPDX-License-Identifier: Apache-2.0
"""Where charts put what, and what they say of it."""

from pathlib import Path

import numpy as np
import pytest

from eval.report.charts import (
    balancedness_chart,
    balancedness_scale,
    lowest_balancedness,
    rank_load_chart,
    seconds_chart,
    sorted_load_chart,
)
from eval.report.page import arm_drawings
from eval.report.runs import read_runs
from eval.report.viewing import view_of_runs
from tests.builders.charts import points, rearrangement
from tests.builders.runs import Shape, write_run
from vllm_eplb_plugin.simulation.drawing import Scale, round_step


def test_balancedness_goes_from_before_to_expected_at_each_rearrangement() -> None:
    done = [rearrangement(10, 0.6, 0.9), rearrangement(20, 0.7, 1.0)]
    chart = balancedness_chart(done, Scale(0.5, 1))

    assert points(chart.drawing, "saw") == [(49.5, 80), (49.5, 20), (99, 60), (99, 0)]
    assert points(chart.drawing, "mark") == [(49.5, 100), (99, 100)]
    assert points(chart.drawing, "unmoved") == []
    assert "before: median 0.650, lowest 0.600; expected after: median 0.950" in chart.description


def test_what_nothing_moved_would_have_been_is_a_line_of_its_own() -> None:
    done = [rearrangement(10, 0.6, 0.9, balancedness_unmoved=0.55)]
    chart = balancedness_chart(done, Scale(0.5, 1))

    assert points(chart.drawing, "unmoved") == [(99, 90)]
    assert "Had nothing moved: median 0.550" in chart.description
    assert lowest_balancedness(done) == 0.55


def test_many_rearrangements_are_a_band() -> None:
    done = [rearrangement(time, 0.6, 0.9) for time in range(1, 400)]
    chart = balancedness_chart(done, Scale(0.5, 1))

    band = points(chart.drawing, "band")
    assert {y for _, y in band[:399]} == {80} and {y for _, y in band[399:]} == {20}
    assert points(chart.drawing, "saw") == []
    assert len(points(chart.drawing, "mark many")) == 399


@pytest.mark.parametrize("lowest", [0.0, 0.3, 0.95, 0.9999, 1.0])
def test_the_scale_of_balancedness_has_all_of_it_and_ends_at_1(lowest: float) -> None:
    scale = balancedness_scale(lowest)

    assert 0 <= scale.low <= lowest and scale.low < 1 and scale.high == 1


def test_experts_are_sorted_and_divided_by_their_mean() -> None:
    chart = sorted_load_chart(np.array([[0.0, 60, 20, 0], [10, 10, 10, 10]]))

    xs, ys = zip(*points(chart.drawing, "layer"), strict=True)
    high = 3 * 1.02
    expected = [100 * (1 - value / high) for value in (3, 1, 0, 0, 1, 1, 1, 1)]
    assert list(ys) == pytest.approx(expected, abs=0.06)
    assert xs == (0, 50, 79.2, 100) * 2
    assert "most loaded of 4 experts gets 1.0 to 3.0 times the mean" in chart.description


def test_the_most_loaded_rank_of_each_layer_is_told_for_both_placements() -> None:
    unmoved, served = np.array([[3.0, 1], [1, 1]]), np.array([[2.0, 2], [1.2, 0.8]])

    chart = rank_load_chart(unmoved, served)

    assert "1.25 times the mean load had the first placement stayed" in chart.description
    assert "1.10 times as served" in chart.description
    assert [tick.label for tick in chart.x] == ["0", "1"]


def test_no_load_at_all_can_be_drawn() -> None:
    nothing = np.zeros((2, 4))

    assert "nan" not in sorted_load_chart(nothing).drawing
    assert "nan" not in rank_load_chart(nothing, nothing).drawing
    assert "nan" not in seconds_chart([0.0]).drawing


def test_times_are_told_in_numbers(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / "run", Shape(rearrangements=100))])
    moved = view_of_runs(runs).moved[1].models[0]
    done = runs[0].arms[2].timelines[0].rearrangements
    seconds = sorted(one.seconds for one in done)

    told = dict(moved.times)

    assert told["rearrangements"] == "100"
    assert told["longest"] == f"{1000 * seconds[-1]:.1f} ms"
    assert told["median"] == f"{500 * (seconds[49] + seconds[50]):.1f} ms"
    assert seconds[93] <= float(told["95th percentile"].split()[0]) / 1000 <= seconds[96]
    received = sum(sum(one.planned.bytes_received) for one in done if one.planned)
    assert told["weights sent, in all"] == f"{received / (1 << 20):.1f} MiB"


def test_layers_are_told_apart_by_what_moving_did(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path / "run", Shape(layers=9))])
    (model,) = arm_drawings(view_of_runs([run]))[0].models
    placements = run.arms[1].timelines[0].placements
    assert placements is not None

    shown = [layer.balancedness_unmoved for layer in model.shown]
    assert shown == sorted(layer.balancedness_unmoved for layer in model.layers)[:4]
    assert [layer.index for layer in model.folded] == sorted(
        {layer.index for layer in model.layers} - {layer.index for layer in model.shown}
    )
    for layer in model.layers:
        served = placements.rank_load_served[layer.index]
        assert layer.balancedness_served == pytest.approx(served.mean() / served.max())
        moved = placements.first[layer.index] != placements.last[layer.index]
        assert layer.slots_changed == moved.sum() > 0


@pytest.mark.parametrize(
    ("step", "round_one"), [(0.3, 0.5), (1, 1), (1.01, 2), (7, 10), (0.02, 0.02), (2.5, 5)]
)
def test_steps_of_an_axis_are_round(step: float, round_one: float) -> None:
    assert round_step(step) == pytest.approx(round_one)


def test_ticks_are_inside_the_scale_and_say_where_they_are() -> None:
    ticks = Scale(0.83, 1).ticks(4)

    assert [tick.label for tick in ticks] == ["0.85", "0.90", "0.95", "1.00"]
    assert ticks[-1].percent == pytest.approx(100)
    assert ticks[0].percent == pytest.approx(100 * 0.02 / 0.17)
