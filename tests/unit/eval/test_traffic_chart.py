# SPDX-License-Identifier: Apache-2.0
"""What ranks received, drawn."""

from eval.activity.timeline import Rearrangement
from eval.report.traffic_chart import traffic_chart, traffic_scale
from tests.builders.charts import points, rearrangement
from tests.builders.events import planned
from vllm_eplb_plugin.observe.events import RearrangementPlanned


def of_ranks(time: float, *received: int) -> Rearrangement:
    plan = planned(1, of_ranks=received)
    assert isinstance(plan, RearrangementPlanned)
    return rearrangement(time, 0.6, 0.9, planned=plan)


def test_a_rearrangement_has_a_line_of_all_bytes_and_a_dot_of_its_busiest_rank() -> None:
    done = [of_ranks(10, 1024, 3072), of_ranks(20, 0, 1024)]
    chart = traffic_chart(done, traffic_scale(4096))

    assert chart is not None
    assert points(chart.drawing, "stem") == [(49.5, 4.8), (99, 76.2)]
    assert points(chart.drawing, "dot") == [(49.5, 28.6), (99, 76.2)]
    assert chart.y_title == "KiB received"
    assert chart.description == (
        "All ranks received 5.0 KiB; in one rearrangement 2.5 KiB (median), 4.0 KiB at most, of "
        "which the busiest rank got up to 3.0 KiB."
    )


def test_many_are_two_lines_with_every_peak() -> None:
    many = [of_ranks(time, 8, 100 if time == 402 else 8) for time in range(1, 500)]
    chart = traffic_chart(many, traffic_scale(108))

    assert chart is not None
    received = points(chart.drawing, "received")
    assert len(received) == len(points(chart.drawing, "busiest")) == 125
    assert sorted(y for _, y in received)[:2] == [4.8, 85.9]
    assert points(chart.drawing, "stem") == []


def test_nothing_at_all_can_be_drawn() -> None:
    chart = traffic_chart([of_ranks(1, 0, 0)], traffic_scale(0))

    assert chart is not None and points(chart.drawing, "dot") == [(99, 100)]


def test_without_what_events_tell_there_is_no_chart() -> None:
    assert traffic_chart([rearrangement(10, 0.6, 0.9)], traffic_scale(0)) is None
