# SPDX-License-Identifier: Apache-2.0
"""What is counted of a server's metrics, and what shows that it was another server."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from eval.activity.by_metrics import (
    activity_by_metrics,
    experts_moved,
    modes_between,
    state_of_eplb,
    tells_of_eplb,
)
from eval.activity.scrapes import FILE, Scrape, another_process, read_kept, read_scrape
from eval.activity.totals import OUTCOMES
from eval.errors import EventsError

Ended = tuple[str, str, str]
"""Model's place, outcome and mode of a rearrangement."""


def text_of(ended: Mapping[Ended, int], **others: float) -> str:
    """As on /metrics; what is named without labels is of EPLB, too."""
    lines = ["process_start_time_seconds 5", 'vllm:generation_tokens_total{engine="0"} 7']
    lines += [f"vllm:eplb_{name} {value}" for name, value in others.items()]
    for (model, outcome, mode), number in ended.items():
        labels = f'model_name="m",model_index="{model}",outcome="{outcome}",mode="{mode}"'
        lines.append(f"vllm:eplb_rearrangements_total{{{labels}}} {number}")
    return "\n".join(lines)


def scrape(time: float = 0.0, ended: Mapping[Ended, int] | None = None, **others: float) -> Scrape:
    return read_scrape(text_of(ended or {}, **others), time)


@pytest.mark.parametrize("seed", range(20))
def test_outcomes_are_those_of_a_history_told_one_by_one(seed: int) -> None:
    draw = random.Random(seed)
    history: list[Ended] = [
        (draw.choice("01"), draw.choice(OUTCOMES), draw.choice(["sync", "async"]))
        for _ in range(draw.randrange(40))
    ]
    asked = draw.randrange(len(history) + 1)
    before, inside = history[:asked], history[asked:]
    found = activity_by_metrics(
        [scrape(1, Counter(before), steps_total=1), scrape(9, Counter(history), steps_total=2)],
        2,
        8,
    )

    def count(outcome: str, told: Sequence[Ended]) -> int:
        return sum(one[1] == outcome for one in told)

    by_model = [sum(one[:2] == (model, "finished") for one in inside) for model in "01"]
    assert found.rearrangements == max(by_model)
    assert (found.skipped, found.drained) == (count("skipped", inside), count("drained", inside))
    # What is wrong counts at any time.
    assert found.placements_rejected == count("rejected", history)
    assert (found.failed, found.stalled) == (count("failed", history), count("stalled", history))
    assert found.modes == sorted({mode for _, _, mode in inside})


def test_what_is_under_way_counts_from_the_first_question_to_the_last_answer() -> None:
    def under_way(age: float) -> float | None:
        scrapes = [scrape(10), scrape(32, rearrangement_age_seconds=age)]
        return activity_by_metrics(scrapes, 11, 30).under_way_seconds

    assert under_way(0) is None
    assert under_way(1) is None
    assert under_way(5) == 3
    assert under_way(1000) == 19


def test_how_long_one_usually_takes_is_the_mean_of_those_that_ended_inside() -> None:
    first = scrape(1, {("0", "finished", "sync"): 2}, rearranging_seconds_total=100)
    last = scrape(9, {("0", "finished", "sync"): 6}, rearranging_seconds_total=102)

    assert activity_by_metrics([first, last], 2, 8).usual_seconds == 0.5


def test_experts_and_starts_are_those_between_two_scrapes() -> None:
    first = scrape(1, moved_experts_total=10, rebalance_events_total=3)
    last = scrape(9, moved_experts_total=34, rebalance_events_total=9)

    assert experts_moved([first, last]) == 24
    assert activity_by_metrics([first, last], 2, 8).rearrangements_started == 6


def test_a_server_that_says_nothing_of_eplb_is_no_witness() -> None:
    assert tells_of_eplb([scrape(steps_total=1), scrape(steps_total=1)])
    # Before its first step a server names them, and has no values.
    named = read_scrape("# TYPE vllm:eplb_state gauge", 0)
    assert tells_of_eplb([named, scrape(steps_total=1)])
    assert not tells_of_eplb([named, named])
    assert not tells_of_eplb([scrape(steps_total=1)])
    assert not tells_of_eplb([scrape(), scrape(steps_total=1)])


def test_state_and_modes_are_read_from_labels() -> None:
    text = 'vllm:eplb_state{model_name="m",state="off",reason="stalled"} 1'

    assert state_of_eplb(read_scrape(text, 0)) == ("off", "stalled")
    assert state_of_eplb(scrape()) is None
    ended = {("0", "finished", "sync"): 3, ("0", "finished", "async"): 0}
    assert modes_between(None, scrape(ended=ended)) == ["sync"]


def test_other_metrics_than_those_of_vllm_count_no_tokens() -> None:
    assert read_scrape("up 1", 0).generated_tokens is None
    assert read_scrape(text_of({}), 0).generated_tokens == 7


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("process_start_time_seconds 5", "process_start_time_seconds 6", "was 5.0 and is 6.0"),
        ("process_start_time_seconds 5", "up 1", "was 5.0 and is None"),
        ("vllm:generation_tokens_total 5", "vllm:generation_tokens_total 4", "was 5 and is 4"),
        ("vllm:generation_tokens_total 5", "up 1", "was 5 and is not told"),
        ("vllm:eplb_steps_total 5", "vllm:eplb_steps_total 4", "was 5 and is 4"),
        ("vllm:eplb_steps_total 5", "up 1", "was 5 and is not told"),
    ],
)
def test_what_goes_back_is_of_another_process(before: str, after: str, said: str) -> None:
    found = another_process([read_scrape(before, 0), read_scrape(after, 1)])
    assert found is not None
    assert said in found


def test_what_grows_and_gauges_that_fall_are_of_one_process() -> None:
    before = "vllm:generation_tokens_total 5\nvllm:eplb_steps_total 5\nvllm:eplb_layers_left 5"
    after = "vllm:generation_tokens_total 5\nvllm:eplb_steps_total 9\nvllm:eplb_layers_left 0"

    assert another_process([read_scrape(before, 0), read_scrape(after, 1)]) is None
    assert another_process([]) is None


def test_scrapes_are_kept_as_they_were(tmp_path: Path) -> None:
    scrapes = [scrape(1, {("0", "finished", "sync"): 2}), scrape(2)]
    lines = "".join(f"{one.model_dump_json()}\n" for one in scrapes)
    assert read_kept(tmp_path) == []
    (tmp_path / FILE).write_text(lines)
    assert read_kept(tmp_path) == scrapes

    (tmp_path / FILE).write_text(f"{lines}{{}}\n")
    with pytest.raises(EventsError, match=r"metrics\.jsonl, line 3: not a scrape"):
        read_kept(tmp_path)
