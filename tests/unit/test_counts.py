# SPDX-License-Identifier: Apache-2.0
"""What became of rearrangements is counted whatever else is told of them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.plan_events import Moment, placement_events
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import EVENTS, Mode, RearrangementEnded
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.observe.sinks.counts import Counts
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines
from vllm_eplb_plugin.observe.status import ModelStatus
from vllm_eplb_plugin.planning.guard import Plan

OLD = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 2, 0]])
NEW = torch.tensor([[0, 1, 2, 1], [0, 1, 2, 0], [0, 1, 1, 2]])
"""Layers 0 and 2 change: rank 1 receives expert 1 in either, of 10 and 30 bytes."""
LOAD = torch.tensor([[2, 6, 2], [0, 0, 0], [4, 4, 4]])
TARGET, DRAFTER = (Moved(ModelId("name", index), [10, 10, 30]) for index in range(2))
FIRST = Source(0, 0, 0)


class Counted:
    """Rearrangements of a rank of which nothing is written."""

    def __init__(self, folder: Path | None = None, source: Source = FIRST) -> None:
        self.log = EventLog(folder, source, counts=True)
        self.follow = Rearrangements(self.log)

    def rearrange(self, new: torch.Tensor = NEW, mode: Mode = "async", **plan: Any) -> None:
        """One rearrangement of the target, but for its commits."""
        self.follow.start(mode, [TARGET])
        self.follow.planned(replace(Plan(LOAD, OLD, new, 2), **plan), mode)

    @property
    def model(self) -> ModelStatus:
        assert flush_all(10)
        [model] = self.log.counts
        return model


def test_what_a_layer_receives_counts_when_it_is_committed() -> None:
    counted = Counted()
    counted.rearrange()
    model = counted.model
    assert (model.started, model.outcomes) == (1, {})
    assert (model.experts_received, model.bytes_received) == (0, 0)
    counted.follow.committed(0, range(1))
    assert counted.model.experts_received == 1
    counted.follow.end_open("drained")
    model = counted.model
    assert (model.experts_received, model.outcomes) == (1, {"drained": 1})
    counted.rearrange()
    counted.follow.committed(0, range(3))
    model = counted.model
    assert model.experts_received == 3
    # By layer as the mean expert has them: 20 of 40, then all 40.
    assert model.bytes_received == 60
    assert model.layers_skipped == 2


def test_the_load_is_measured_under_the_placement_in_force_whatever_becomes_of_the_plan() -> None:
    for how in ({"rejection": "no"}, {"new": OLD}, {}):
        counted = Counted()
        counted.rearrange(**how)
        model = counted.model
        # Ranks have 7 and 3 tokens in layer 0 (1 + 6 and 2 + 1), 6 and 6 in layer 2.
        assert model.balancedness == pytest.approx([5 / 7, 1.0, 1.0])
        assert model.balancedness_overall == pytest.approx(11 / 13)
        assert model.tokens == [13, 9]


def test_outcomes_and_seconds_are_counted_by_mode() -> None:
    counted = Counted()
    counted.rearrange(mode="sync")
    counted.follow.committed(0, range(3))
    counted.rearrange(rejection="no slot")
    counted.rearrange(new=OLD)
    model = counted.model
    assert model.started == 3
    assert model.outcomes == {"finished": 1, "rejected": 1, "skipped": 1}
    assert model.by_mode == {"sync": {"finished": 1}, "async": {"rejected": 1, "skipped": 1}}
    assert model.last_seconds is not None
    assert 0 < model.last_seconds < model.seconds


def test_every_event_that_is_an_outcome_is_counted() -> None:
    kinds = [kind.kind for kind in EVENTS if issubclass(kind, RearrangementEnded)]
    counts = Counts()
    for kind in kinds:
        line = {"event": kind, "model": "name", "model_index": 0, "mode": "sync", "seconds": 1.5}
        list(counts.write(line))
    [model] = counts.models
    assert {f"rearrangement_{outcome}" for outcome in model.outcomes} == {*kinds}
    assert model.seconds == 1.5 * len(kinds)


def test_the_ranks_that_could_go_are_those_of_the_placement_in_force() -> None:
    counted = Counted()
    on_both = torch.tensor([[0, 1, 0, 1]])
    moment = Moment("name", 0, 1, 10, "sync")
    load = torch.ones(1, 2)
    for new, survivable in ((on_both, [0, 1]), (torch.tensor([[0, 0, 0, 1]]), [0])):
        plan = Plan(load, on_both, new, 2)
        counted.log.tell(lambda plan=plan: placement_events(moment, plan, ()))
        assert counted.model.survivable == survivable
        assert counted.model.layers == 1


def test_a_drafter_has_figures_of_its_own() -> None:
    counted = Counted()
    counted.follow.start("async", [DRAFTER, TARGET])
    counted.follow.planned(Plan(LOAD, OLD, OLD, 2, "no"), "async")
    counted.follow.planned(Plan(LOAD, OLD, NEW, 2), "async")
    assert flush_all(10)
    target, drafter = counted.log.counts
    assert (target.model_index, drafter.model_index) == (0, 1)
    assert (target.outcomes, drafter.outcomes) == ({}, {"rejected": 1})


def test_a_file_that_takes_for_ever_holds_no_count_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    def wait(*_: object) -> Iterator[None]:
        may_go_on.wait()
        yield

    monkeypatch.setattr(JsonLines, "write", wait)
    counted = Counted(tmp_path)
    counted.rearrange()
    counted.follow.end_open("drained")
    try:
        assert counted.log._deliveries[0].flush(10)
        [model] = counted.log.counts
        assert model.outcomes == {"drained": 1}
    finally:
        may_go_on.set()


def test_counts_that_fail_cost_the_file_nothing_and_are_told_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Iterator[None]:
        raise RuntimeError("no")

    monkeypatch.setattr(Counts, "write", fail)
    counted = Counted(tmp_path)
    counted.follow.start("sync", [TARGET])
    assert flush_all(10)
    assert counted.log.dropped == 1
    assert (tmp_path / "rank0.jsonl").read_text().count("rearrangement_started") == 1


def test_only_the_first_rank_of_a_stage_measures_and_counts(tmp_path: Path) -> None:
    first, second = (Counted(tmp_path, source) for source in (FIRST, Source(1, 1, 0)))
    for counted in (first, second):
        counted.rearrange()
    assert flush_all(10)
    assert len(first.log.counts) == 1
    assert second.log.counts == []
    told = [(tmp_path / f"rank{rank}.jsonl").read_text() for rank in range(2)]
    assert [text.count("load_measured") for text in told] == [1, 0]
