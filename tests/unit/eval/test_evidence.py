# SPDX-License-Identifier: Apache-2.0
"""What is counted of the events."""

from pathlib import Path

import pytest

from eval.activity.counts import read_activity
from eval.activity.moved_models import MovedModel, labels
from eval.activity.totals import Activity, ModelActivity
from tests.builders.events import committed, finished, moment, started, told, write_events
from vllm_eplb_plugin.observe.events import (
    EventsDropped,
    MapsChecked,
    RearrangementDrained,
    RearrangementEnded,
    RearrangementFailed,
    RearrangementRejected,
    RearrangementSkipped,
    RearrangementStalled,
    Source,
    WeightsChecked,
)

NOT_FINISHED = (
    RearrangementSkipped(*moment(2), 0.1, "nothing to gain"),
    RearrangementRejected(*moment(3), 0.1, "no"),
    RearrangementDrained(*moment(4), 0.1, 2),
    RearrangementFailed(*moment(5), 0.1, "RuntimeError: gone", 2),
    RearrangementStalled(*moment(7), 0.1, "RuntimeError: gone", 2),
)


def test_only_what_happened_between_the_two_times_counts(tmp_path: Path) -> None:
    lines = [told(time, finished(time)) for time in (9, 10, 15, 20, 21)]

    assert read_activity(write_events(tmp_path, lines), 10, 20).rearrangements == 3


def test_placements_are_counted_once_and_weight_checks_on_every_rank(tmp_path: Path) -> None:
    ranks = [
        [
            told(1, event, Source(rank, rank, 0))
            for event in (
                finished(1, [3, 0]),
                committed(0, 3),
                WeightsChecked("main", 0, 0, 10, [rank] * rank),
                RearrangementRejected(*moment(2), 0.1, "no"),
            )
        ]
        for rank in range(3)
    ]
    evidence = read_activity(write_events(tmp_path, *ranks), 0, 2)

    assert evidence.rearrangements == 1
    assert evidence.layers_committed == 1
    assert evidence.placements_rejected == 1
    assert evidence.weight_checks == 30
    assert evidence.weight_mismatches == 3
    assert evidence.modes == ["async"]


def test_slots_changed_are_summed_for_each_layer(tmp_path: Path) -> None:
    lines = [told(1, committed(0, 3)), told(1, committed(1, 4)), told(2, committed(0, 5))]

    assert read_activity(write_events(tmp_path, lines), 0, 9).slots_changed == [8, 4]


def test_a_layer_that_never_changed_is_a_zero(tmp_path: Path) -> None:
    lines = [told(1, committed(0, 3)), told(1, finished(1, [3, 0, 0]))]

    assert read_activity(write_events(tmp_path, lines), 0, 9).slots_changed == [3, 0, 0]


@pytest.mark.parametrize("name", ["main", "drafter"])
def test_the_layers_of_a_drafter_are_not_those_of_its_target(tmp_path: Path, name: str) -> None:
    drafter = {"name": name, "model_index": 1}
    lines = [told(1, committed(0, 4, **drafter)), told(1, committed(1, 3))]

    assert read_activity(write_events(tmp_path, lines), 0, 9).slots_changed == [0, 3, 4]


def test_the_layers_of_one_stage_are_not_those_of_another(tmp_path: Path) -> None:
    """The drafter is on the last stage."""
    second = Source(0, 1, 1)
    drafter = committed(0, 9, "main", model_index=1)
    ranks = [
        [told(1, committed(0, 3)), told(1, committed(1, 4))],
        [told(1, drafter, second), told(1, committed(0, 5), second)],
    ]
    evidence = read_activity(write_events(tmp_path, *ranks), 0, 9)

    assert evidence.slots_changed == [3, 4, 5, 9]
    assert evidence.labels() == ["main, stage 0", "main, stage 1", "main (drafter), stage 1"]


def test_every_outcome_is_counted_and_only_what_finished_is_a_rearrangement(
    tmp_path: Path,
) -> None:
    lines = [
        *(told(1, started(number)) for number in range(1, 8)),
        told(1, finished(1)),
        *(told(1, event) for event in NOT_FINISHED),
        told(1, finished(6)),
    ]
    evidence = read_activity(write_events(tmp_path, lines), 0, 9)

    assert (evidence.rearrangements_started, evidence.rearrangements) == (7, 2)
    assert evidence.other_outcomes() == "1 skipped, 1 rejected, 1 drained, 1 failed, 1 stalled"
    assert evidence.ended == 7
    assert evidence.failures == ["RuntimeError: gone"]


@pytest.mark.parametrize("outcome", NOT_FINISHED, ids=lambda outcome: outcome.kind)
def test_what_has_any_outcome_is_not_under_way(tmp_path: Path, outcome: RearrangementEnded) -> None:
    lines = [told(1, started(outcome.rearrangement)), told(2, outcome)]

    assert read_activity(write_events(tmp_path, lines), 0, 9).under_way_seconds is None


def test_what_fails_on_one_rank_only_is_counted_and_what_fails_on_all_once(
    tmp_path: Path,
) -> None:
    def failed(number: int) -> RearrangementFailed:
        return RearrangementFailed(*moment(number), 0.1, f"reason {number}", None)

    ranks = [
        [told(1, failed(1)), told(2, finished(2))],
        [told(1, failed(1), Source(1, 1, 0)), told(2, failed(2), Source(1, 1, 0))],
    ]
    evidence = read_activity(write_events(tmp_path, *ranks), 0, 9)

    assert evidence.failed == 2
    assert evidence.failures == ["reason 1", "reason 2"]


def test_outcomes_of_several_models_are_told_with_their_names() -> None:
    def model(name: str, index: int, **outcomes: int) -> ModelActivity:
        return ModelActivity(model=name, model_index=index, stage=0, **outcomes)

    evidence = Activity(models=[model("main", 0, finished=3), model("draft", 1, skipped=3)])

    assert evidence.other_outcomes() == "draft: 3 skipped"


def test_models_are_called_by_their_names_as_long_as_these_tell_them_apart() -> None:
    assert labels([MovedModel(0, 0, "main")]) == ["main"]
    assert labels([MovedModel(0, 0, "main"), MovedModel(1, 0, "draft")]) == ["main", "draft"]
    assert labels([MovedModel(0, 0, "main"), MovedModel(1, 0, "main")])[1] == "main (drafter)"


def test_balancedness_is_the_mean_over_rearrangements(tmp_path: Path) -> None:
    lines = [told(1, finished(1, before=0.4)), told(2, finished(2, before=0.6))]

    evidence = read_activity(write_events(tmp_path, lines), 0, 9)
    assert evidence.balancedness_before == pytest.approx(0.5)


def test_no_events_are_no_evidence(tmp_path: Path) -> None:
    assert read_activity(tmp_path / "nowhere", 0, 9) == Activity()


def test_a_rearrangement_that_ends_is_not_under_way(tmp_path: Path) -> None:
    # It ends after the last answer: it was late, but does not hang.
    lines = [told(1, started(1)), told(2, finished(1)), told(8, started(2)), told(11, finished(2))]
    evidence = read_activity(write_events(tmp_path, lines), 0, 9)

    assert (evidence.rearrangements_started, evidence.rearrangements) == (2, 1)
    assert (evidence.failed, evidence.under_way_seconds) == (0, None)
    assert evidence.usual_seconds == pytest.approx(0.1)


def test_one_that_never_ends_is_under_way_until_the_last_answer(tmp_path: Path) -> None:
    lines = [told(1, started(1)), told(2, finished(1)), told(4, started(2))]

    assert read_activity(write_events(tmp_path, lines), 0, 9).under_way_seconds == 5


def test_one_that_hangs_on_one_rank_or_for_one_model_only_is_found(tmp_path: Path) -> None:
    good = [told(1, started(1)), told(2, finished(1))]
    ranks = [good, [told(1, started(1), Source(1, 1, 0))]]
    assert read_activity(write_events(tmp_path, *ranks), 0, 9).under_way_seconds == 8

    ranks = [[*good, told(3, started(1, "main", model_index=1))], good]
    assert read_activity(write_events(tmp_path, *ranks), 0, 9).under_way_seconds == 6


def test_one_that_hung_before_the_questions_waits_since_the_first(tmp_path: Path) -> None:
    lines = [told(1, started(1))]
    assert read_activity(write_events(tmp_path, lines), 5, 9).under_way_seconds == 4


def test_one_that_starts_after_the_last_answer_is_left_out(tmp_path: Path) -> None:
    lines = [told(9.5, started(1))]
    assert read_activity(write_events(tmp_path, lines), 5, 9).under_way_seconds is None


def test_maps_are_checked_on_every_rank(tmp_path: Path) -> None:
    ranks = [
        [told(1, MapsChecked("main", 0, 0, 16, [3] * rank), Source(rank, rank, 0))]
        for rank in range(2)
    ]
    evidence = read_activity(write_events(tmp_path, *ranks), 0, 9)

    assert (evidence.map_checks, evidence.map_mismatches) == (32, 1)


def test_a_rank_checks_weights_when_it_does_on_every_stage(tmp_path: Path) -> None:
    sources = [Source(0, 0, 0), Source(1, 1, 0), Source(0, 2, 1), Source(1, 3, 1)]
    checked = WeightsChecked("main", 0, 0, 10, [])
    files = [[told(1, checked, source)] for source in sources[:3]]
    files.append([told(1, started(1), sources[3])])

    assert read_activity(write_events(tmp_path, *files), 0, 9).checking_ranks == [0]


def test_dropped_events_are_counted_on_every_rank(tmp_path: Path) -> None:
    dropped = EventsDropped(3, "No space left on device")
    ranks = [[told(1, dropped, Source(rank, rank, 0))] for rank in range(2)]
    assert read_activity(write_events(tmp_path, *ranks), 0, 9).events_dropped == 6


def test_what_an_earlier_result_calls_abandoned_has_failed() -> None:
    assert Activity.model_validate({"rearrangements": 3, "abandoned": 2}).failed == 2
