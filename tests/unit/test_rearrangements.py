# SPDX-License-Identifier: Apache-2.0
"""Plans and commits find their rearrangement, and what ends it is told once."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import Mode
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.planning.guard import Plan

OLD = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 2, 0]])
NEW = torch.tensor([[0, 1, 2, 1], [0, 1, 2, 0], [0, 1, 2, 2]])
"""Layers 0 and 2 change."""
# As vLLM calls a drafter before 0.32.
TARGET, DRAFTER = (Moved(ModelId("name", index), [10, 10, 10]) for index in range(2))


def plan(new: torch.Tensor = NEW, rejection: str | None = None) -> Plan:
    return Plan(torch.ones(3, 3), OLD, OLD if rejection else new, 2, rejection)


class Told:
    """Rearrangements of one rank, and what they told."""

    def __init__(self, folder: Path, source: Source | None = None) -> None:
        source = source or Source(0, 0, 0)
        self._mode: Mode = "sync"
        self._file = folder / f"rank{source.global_rank}.jsonl"
        self.follow = Rearrangements(EventLog(folder, source))

    def start(self, mode: Mode, models: list[Moved]) -> None:
        self._mode = mode
        self.follow.start(mode, models)

    def planned(self, plan: Plan) -> None:
        self.follow.planned(plan, self._mode)

    def events(self) -> list[dict[str, Any]]:
        assert flush_all(10)
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def kinds(self, index: int = 0) -> list[str]:
        """What happened; what each plan was made from is in test_counts.py."""
        kinds = [e["event"] for e in self.events() if e["model_index"] == index]
        return [kind for kind in kinds if kind != "load_measured"]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_it_finishes_with_the_last_layer_that_changes(told: Told) -> None:
    told.start("async", [TARGET])
    told.planned(plan())
    told.follow.committed(0, range(0, 1))
    told.follow.committed(0, range(1, 2))
    assert not told.follow.outcomes
    told.follow.step = 7
    told.follow.committed(0, range(2, 3))
    assert told.follow.outcomes == {"finished": 1}
    assert told.kinds() == [
        "rearrangement_started",
        "rearrangement_planned",
        "layer_committed",
        "layer_committed",
        "rearrangement_finished",
        "placement",
    ]
    *_, last, finished, placement = told.events()
    assert (last["layer"], last["slots_changed"], last["step"]) == (2, 1, 7)
    assert finished["slots_changed"] == [1, 0, 1]
    assert placement["physical_to_logical_map"] == NEW.tolist()


def test_all_layers_at_once_finish_it(told: Told) -> None:
    told.start("sync", [TARGET])
    told.planned(plan())
    told.follow.committed(0, range(3))
    assert told.kinds()[-2:] == ["rearrangement_finished", "placement"]
    assert [e["layer"] for e in told.events() if e["event"] == "layer_committed"] == [0, 2]


def test_a_drafter_with_its_target_s_name_is_a_model_of_its_own(told: Told) -> None:
    told.start("async", [TARGET, DRAFTER])
    told.planned(plan())
    told.planned(plan(rejection="no slot"))
    told.follow.committed(1, range(3))  # of the placement that stays
    told.follow.committed(0, range(3))
    assert told.kinds(0)[-2:] == ["rearrangement_finished", "placement"]
    assert told.kinds(1) == ["rearrangement_started", "rearrangement_rejected"]
    assert {event["model"] for event in told.events()} == {"name"}


def test_a_rejection_is_told_when_it_is_rejected(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.start("sync", [TARGET])
    told.planned(plan(rejection="no slot for logical expert 0"))
    assert told.events()[-1]["reason"] == "no slot for logical expert 0"
    assert "rejected (1 so far), the old one stays: no slot for" in caplog.text


def test_a_plan_without_a_change_is_skipped(told: Told) -> None:
    told.start("async", [TARGET])
    told.planned(plan(OLD))
    told.follow.committed(0, range(3))
    assert told.kinds() == ["rearrangement_started", "rearrangement_skipped"]


@pytest.mark.parametrize("outcome", ["skipped", "drained", "failed"])
def test_what_ends_it_early_leaves_the_placement_that_is_in_force(
    outcome: Any, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.start("async", [TARGET])
    told.planned(plan())
    told.follow.committed(0, range(1))
    told.follow.end_open(outcome, "a reason")
    told.follow.committed(0, range(3))
    assert told.kinds()[-2:] == [f"rearrangement_{outcome}", "placement"]
    assert told.events()[-1]["physical_to_logical_map"] == [*NEW[:1].tolist(), *OLD[1:].tolist()]
    assert ("failed: a reason" in caplog.text) == (outcome == "failed")


def test_what_changed_nothing_tells_no_placement(told: Told) -> None:
    told.start("sync", [TARGET])
    told.planned(plan())
    told.follow.end_open("skipped", "too little to gain")
    assert told.kinds()[-1] == "rearrangement_skipped"


def test_the_next_one_ends_one_that_never_ended(told: Told) -> None:
    told.start("async", [TARGET, DRAFTER])
    told.planned(plan())
    told.start("async", [TARGET, DRAFTER])
    assert told.follow.outcomes == {"failed": 2}
    first, second = (e for e in told.events() if e["event"] == "rearrangement_failed")
    assert (first["rearrangement"], first["layers_left"]) == (1, 2)
    assert (second["model_index"], second["layers_left"]) == (1, None)
    told.planned(plan())  # of the new one's first model
    told.follow.committed(0, range(3))
    assert told.follow.outcomes["finished"] == 1


@pytest.mark.parametrize(
    ("is_whole", "so"),
    [(True, "committed is whole"), (False, "do not go on serving")],
)
def test_what_is_raised_is_the_reason_and_is_raised(told: Told, is_whole: bool, so: str) -> None:
    told.start("async", [TARGET])
    with pytest.raises(TimeoutError), told.follow.failing(is_whole):
        raise TimeoutError("a peer is silent")
    reason = told.events()[-1]["reason"]
    assert reason.startswith("TimeoutError: a peer is silent. ") and so in reason


def test_a_plan_of_the_worker_is_not_that_of_a_rearrangement_that_elastic_ep_has_started(
    told: Told,
) -> None:
    told.start("async", [TARGET])
    told.start("sync", [TARGET])
    told.follow.planned(plan(torch.roll(NEW, 1, dims=1)), "async")
    told.planned(plan())
    told.follow.committed(0, range(3))
    assert told.follow.outcomes == {"failed": 1, "finished": 1}
    [finished] = (e for e in told.events() if e["event"] == "rearrangement_finished")
    assert finished["slots_changed"] == [1, 0, 1]


def test_a_late_plan_is_its_own_model_s(told: Told) -> None:
    told.start("async", [TARGET, DRAFTER])
    told.follow.end_open("drained")
    told.planned(plan())
    told.planned(plan(rejection="none"))
    assert told.follow.outcomes == {"drained": 2}


def test_a_plan_that_nothing_started_is_not_followed(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        told.planned(plan(rejection="while memory is profiled"))
        told.planned(plan())
        told.follow.committed(0, range(3))
    assert told.events() == []
    assert caplog.text == ""


def test_ranks_of_two_stages_have_a_file_each_and_one_of_each_stage_tells_placements(
    tmp_path: Path,
) -> None:
    ranks = [Told(tmp_path, Source(rank % 2, rank, rank // 2)) for rank in range(4)]
    for one in ranks:
        one.start("sync", [TARGET])
        one.planned(plan())
        one.follow.committed(0, range(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"rank{n}.jsonl" for n in range(4)]
    heads = [(e["rank"], e["global_rank"], e["stage"]) for e in (r.events()[0] for r in ranks)]
    assert heads == [(0, 0, 0), (1, 1, 0), (0, 2, 1), (1, 3, 1)]
    assert ["placement" in one.kinds() for one in ranks] == [True, False, True, False]
