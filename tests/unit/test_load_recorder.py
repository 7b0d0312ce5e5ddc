# SPDX-License-Identifier: Apache-2.0
"""What rearrangements plan from is recorded whatever becomes of the plan, and what is in force."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.load_recorder import LoadRecorder, Serving, make_recorder
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import Mode, Trigger
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.planning.guard import Plan
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import Recording, Shape
from vllm_eplb_plugin.recording.recording_sink import RecordingSink
from vllm_eplb_plugin.settings import Settings

OLD = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 2, 0]])
NEW = torch.tensor([[0, 1, 2, 1], [0, 1, 2, 0], [0, 1, 2, 2]])
"""Layers 0 and 2 change."""
MODEL = Moved(ModelId("name", 0), [10, 20, 30])
STATE = SimpleNamespace(
    model=SimpleNamespace(num_logical_experts=3, num_expert_groups=2),
    physical_to_logical_map=OLD,
)


def plan(step: int, new: torch.Tensor = NEW, rejection: str | None = None) -> Plan:
    load = torch.full((3, 3), step)
    return Plan(load, OLD, OLD if rejection else new, 2, rejection)


class Recorded:
    """Rearrangements of one rank that are recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.follow = Rearrangements(EventLog(None, Source(0, 0, 0)))
        sink = RecordingSink(folder, 10**9, 0)
        self._recorder = LoadRecorder(sink, Serving(2, 3, "0.26.0", 100, 50), None)
        self.follow.recorder = self._recorder
        self._recorder.placed(MODEL, STATE, 0)

    def plan(
        self, step: int, made: Plan, trigger: Trigger = "interval", mode: Mode = "async"
    ) -> None:
        self.follow.step, self.follow.trigger = step, trigger
        self.follow.start(mode, [MODEL])
        self.follow.planned(made, mode)

    def read(self) -> Recording:
        assert flush_all(10)
        self._recorder.close()
        [recording] = read_recordings(self._folder)
        return recording


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def placements(recording: Recording) -> dict[int, list[list[int]]]:
    return {one.step: one.physical_to_logical.tolist() for one in recording.placements}


def test_a_placement_is_in_force_since_the_step_that_planned_it(recorded: Recorded) -> None:
    recorded.plan(10, plan(10))
    for layer in range(3):
        recorded.follow.step += 1
        recorded.follow.committed(0, [layer])
    recording = recorded.read()
    [window] = recording.windows
    assert (window.step, window.load.tolist()) == (10, [[10] * 3] * 3)
    assert placements(recording) == {0: OLD.tolist(), 10: NEW.tolist()}
    assert [(one.step, one.outcome) for one in recording.outcomes] == [(10, "finished")]


def test_what_was_served_is_said_as_it_is_planned_for(recorded: Recorded) -> None:
    recorded.plan(10, plan(10))
    served = recorded.read().served
    # Neither 3 nodes share 2 ranks evenly, nor 2 groups 3 experts.
    assert served.shape == Shape(layers=3, experts=3, slots=4, ranks=2, nodes=1, groups=1)
    assert served.expert_bytes == (10, 20, 30)
    assert (served.release, served.interval_steps, served.window_steps) == ("0.26.0", 100, 50)
    assert served.policy == ""


def test_loads_of_plans_that_move_nothing_are_recorded(recorded: Recorded) -> None:
    recorded.plan(10, plan(10, rejection="no slot for logical expert 0"))
    recorded.plan(20, plan(20, new=OLD))
    recording = recorded.read()
    assert [one.step for one in recording.windows] == [10, 20]
    assert placements(recording) == {0: OLD.tolist()}
    assert [one.outcome for one in recording.outcomes] == ["rejected", "skipped"]


def test_layers_that_were_left_have_the_placement_before(recorded: Recorded) -> None:
    recorded.plan(10, plan(10))
    recorded.follow.committed(0, [0])
    recorded.follow.end_open("failed", "a worker has ended")
    mixed = [NEW[0].tolist(), OLD[1].tolist(), OLD[2].tolist()]
    assert placements(recorded.read()) == {0: OLD.tolist(), 10: mixed}


def test_experts_that_go_back_are_planned_from_no_load(recorded: Recorded) -> None:
    recorded.plan(10, plan(10), mode="sync")
    recorded.follow.committed(0, range(3))
    recorded.plan(15, Plan(torch.ones(3, 3), NEW, OLD, 2), trigger="other", mode="sync")
    recorded.follow.committed(0, range(3))
    recording = recorded.read()
    assert [one.step for one in recording.windows] == [10]
    assert list(placements(recording)) == [0, 10, 15]
    assert placements(recording)[15] == OLD.tolist()


def test_nobody_records_unless_asked_and_on_one_rank(tmp_path: Path) -> None:
    config = SimpleNamespace(eplb_config=SimpleNamespace(step_interval=1, window_size=1))
    settings = Settings.model_validate({"recording": {"dir": tmp_path}})
    assert make_recorder(Settings(), Source(0, 0, 0), config, None) is None
    assert make_recorder(settings, Source(1, 1, 0), config, None) is None
    assert list(tmp_path.iterdir()) == []
