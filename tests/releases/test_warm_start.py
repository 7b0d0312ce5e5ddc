# SPDX-License-Identifier: Apache-2.0
"""What the setting `planning.initial` does on two gloo ranks of some releases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.releases.ranks import Ranks, Reports, assert_nothing_wrong
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Problem
from vllm_eplb_plugin.recording.recording import Served, Shape, Window
from vllm_eplb_plugin.recording.rotation import Rotation
from vllm_eplb_plugin.recording.writer import RecordingWriter

SYNC_AND_ASYNC = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
SHAPE = Shape(layers=3, experts=8, slots=12, ranks=2)
FIRST = np.tile(np.arange(12) % 8, (3, 1))
SKEWED = np.array([100, 90, 80, 70, 300, 250, 60, 50])
INTERVAL = 12


def loads(seed: int, steps: int) -> NDArray[np.int64]:
    """``[steps, logical]``: some experts are hot, in every step about alike."""
    return np.random.default_rng(seed).poisson(SKEWED, (steps, 8))


def recorded_loads(index: int) -> NDArray[np.int64]:
    """The same of a model that was served, or of a drafter, whose hot experts are others."""
    return loads(7, 3)[:, :: -1 if index else 1]


def record(folder: Path, model: str = "model0", index: int = 0, shape: Shape = SHAPE) -> Path:
    """Write what another server, of twice as many ranks, saw of a model."""
    served = Served(model, index, shape, (32,) * shape.layers, "0.26.0", 12, 12)
    writer = RecordingWriter(folder / "start", served, Rotation(folder, 10**9))
    for step, load in enumerate(recorded_loads(index), start=1):
        layers = np.resize(load, (1, shape.layers, shape.experts))
        writer.taken(Window(step, float(step), layers))
    for _ in writer.write():
        pass
    return folder


def planned(folder: Path, index: int = 0) -> list[list[int]]:
    """What `incremental` plans from it, on two ranks."""
    total = np.tile(recorded_loads(index).sum(axis=0), (3, 1)).astype(np.float64)
    placement: list[list[int]] = Incremental()(Problem(total, FIRST.copy(), 2)).tolist()
    return placement


def run(ranks: Ranks, initial: Any, steps: int = 60, **job: Any) -> Reports:
    names = ("put_back", "refused", "options", "loads", "interval")
    arguments = {"loads": loads(1, steps).tolist(), "interval": INTERVAL}
    arguments |= {name: job.pop(name) for name in names if name in job}
    planning = {"policy": "incremental", "initial": initial, **job.pop("planning", {})}
    settings = {"planning": planning, **job.pop("settings", {})}
    reports = ranks(scenario="warm_start", arguments=arguments, settings=settings, **job)
    if "refused" not in arguments:
        assert_nothing_wrong(reports)
    return reports


def measured(folder: Path) -> list[float]:
    """Of each plan, the balancedness of what was served."""
    events = map(json.loads, (folder / "rank0.jsonl").read_text().splitlines())
    return [e["balancedness_overall"] for e in events if e["event"] == "load_measured"]


@SYNC_AND_ASYNC
def test_each_model_begins_as_planned_from_its_own_load_and_moves_on(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    record(tmp_path, "a/model1", 0, Shape(layers=3, experts=8, slots=16, ranks=4))
    record(tmp_path, "/b/model0", 1)
    reports = run(some_ranks, str(tmp_path), models=2, use_async=use_async)
    wanted = [planned(tmp_path, 1), planned(tmp_path, 0)]
    assert [report["initial"] for report in reports] == [wanted, wanted]
    assert wanted[0] != wanted[1]
    for report in reports:
        # One for each model at the start, and then at each interval as ever.
        assert report["rearrangements"] == 2 + len(range(3, 60 + 1, INTERVAL))
        assert report["outcomes"].get("rejected", 0) == 0


def test_the_first_window_is_as_balanced_as_after_the_first_rearrangement(
    some_ranks: Ranks, tmp_path: Path
) -> None:
    path = str(record(tmp_path / "recording"))
    run(some_ranks, None, events_dir=str(tmp_path / "cold"))
    run(some_ranks, path, events_dir=str(tmp_path / "warm"))
    first, after, *_ = measured(tmp_path / "cold")
    recorded, begun, *_ = measured(tmp_path / "warm")
    assert max(first, recorded) < after - 0.05
    assert begun == pytest.approx(after, abs=0.01)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("is_another", [False, True])
def test_it_plans_at_once_where_another_load_is_served_than_was_recorded(
    is_another: bool, use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    path, events = str(record(tmp_path / "recording")), tmp_path / "events"
    run(
        some_ranks,
        path,
        loads=loads(1, 40)[:, :: -1 if is_another else 1].tolist(),
        interval=400,
        planning={"trigger": {"changed": 0.2, "check_steps": 5}},
        events_dir=str(events),
        use_async=use_async,
    )
    lines = map(json.loads, (events / "rank0.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["event"] == "load_measured"]
    # A look in step 5 is decided four steps later; vLLM's interval ends later than this.
    assert steps == ([0, 9] if is_another else [0])


@SYNC_AND_ASYNC
def test_what_is_never_rearranged_stays_and_is_not_recorded(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    job: dict[str, Any] = {"use_async": use_async, "planning": {"rearrange": "never"}}
    reports = run(some_ranks, str(record(tmp_path)), **job)
    for report in reports:
        assert report["initial"] == [planned(tmp_path)]
        assert report["placements"] == []
        assert report["rearrangements"] == 1
        assert not any(report["recorded"])


@SYNC_AND_ASYNC
def test_what_is_never_rearranged_is_where_an_operator_orders_it(
    use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    initial = {"path": str(record(tmp_path, "another")), "any_name": True}
    planning = {"policy": "default", "initial": initial, "rearrange": "never"}
    reports = some_ranks(
        scenario="commanded",
        arguments={"window": 4, "interval": 4, "commands": [[3, 0, 1, "rearrange"]]},
        settings={"planning": planning, "control": True},
        steps=150,
        use_async=use_async,
    )
    assert_nothing_wrong(reports)
    for report in reports:
        # Ranks ask each other in step 64, and carry it out four steps later.
        assert report["started"] == [68]
        assert len(report["placements"]) == 1


@SYNC_AND_ASYNC
@pytest.mark.parametrize("rearrange", ["interval", "never"])
def test_new_weights_find_the_first_placement_and_experts_move_again(
    rearrange: str, use_async: bool, some_ranks: Ranks, tmp_path: Path
) -> None:
    job: dict[str, Any] = {
        "use_async": use_async,
        "planning": {"rearrange": rearrange},
        "put_back": 20,
    }
    reports = run(some_ranks, str(record(tmp_path)), **job)
    for report in reports:
        placements = [placement for [placement] in report["placements"]]
        assert FIRST.tolist() in placements
        later = placements[placements.index(FIRST.tolist()) + 1 :]
        assert later if rearrange == "interval" else later == [planned(tmp_path)]


def test_only_a_placement_of_the_same_shape_is_taken(some_ranks: Ranks, tmp_path: Path) -> None:
    file = tmp_path / "placement.json"
    for slots in (12, 14):
        placement = [(np.arange(slots)[::-1] % 8).tolist()] * 3
        file.write_text(json.dumps({"model": "model0", "physical_to_logical_map": placement}))
        if slots == 12:
            reports = run(some_ranks, str(file), planning={"rearrange": "never"})
            assert [report["initial"] for report in reports] == [[placement]] * 2
            continue
        refused = run(some_ranks, str(file), refused=True)
        for report in refused:
            assert f"{file}" in report["error"]
            assert "14 slots, and 12 are served" in report["error"]


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        ("other", SHAPE, "it is of other, and model0 is served"),
        (
            "model0",
            Shape(layers=4, experts=8, slots=12, ranks=2),
            "loads are of 4 MoE layers, and 3 are served",
        ),
        (
            "model0",
            Shape(layers=3, experts=10, slots=12, ranks=2),
            "loads are of 10 logical experts, and 8 are served",
        ),
    ],
)
def test_what_is_of_another_model_is_refused_on_every_rank(
    model: str, shape: Shape, said: str, some_ranks: Ranks, tmp_path: Path
) -> None:
    path = str(record(tmp_path, model, 0, shape))
    reports = run(some_ranks, path, refused=True)
    assert reports[0]["error"] == reports[1]["error"]
    assert f"WarmStartError: planning.initial='{path}' is refused: " in reports[0]["error"]
    assert said in reports[0]["error"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "No such file or directory"),
        ({"enable_elastic_ep": True}, "planning.initial places experts when all ranks have loaded"),
        ({"pipeline_parallel_size": 2}, "planning.initial is of all MoE layers of a model"),
    ],
)
def test_what_cannot_be_begun_with_is_refused_before_a_model_is_added(
    options: dict[str, Any], said: str, some_ranks: Ranks, tmp_path: Path
) -> None:
    settings = {"check_weights": False}
    job: dict[str, Any] = {"refused": True, "options": options, "settings": settings}
    reports = run(some_ranks, str(tmp_path / "nothing"), **job)
    assert all(said in report["error"] for report in reports)
