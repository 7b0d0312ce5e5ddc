# SPDX-License-Identifier: Apache-2.0
"""What a model begins with, of recordings and of placements."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.builders.recordings import SHAPE, in_force, served, window, write, writer_in
from vllm_eplb_plugin.recording.initial import (
    Initial,
    InitialError,
    base_name,
    initial_for,
    initials_of,
    require_fit,
)
from vllm_eplb_plugin.recording.recording import Recording, RecordingError, Served, Shape
from vllm_eplb_plugin.recording.sources import read_any


def recording(*steps: int, model: str = "org/Tiny", index: int = 0) -> Recording:
    return Recording(named(model, index), [window(step) for step in steps])


def named(model: str, index: int = 0, shape: Shape = SHAPE) -> Served:
    return replace(served(shape, index), model=model)


def initial(model: str = "org/Tiny", index: int = 0, shape: Shape = SHAPE) -> Initial:
    rows = ((1,) * shape.experts,) * shape.layers
    return Initial(model, index, shape, 1, rows)


def placement_file(folder: Path, *objects: Any) -> Path:
    file = folder / "placement.json"
    file.write_text("\n".join(json.dumps(one) for one in objects))
    return file


@pytest.mark.parametrize(("last", "used"), [(None, [1, 2, 3, 9]), (2, [3, 9]), (7, [1, 2, 3, 9])])
def test_loads_of_all_starts_are_added_up_the_last_ones_if_told(
    last: int | None, used: list[int]
) -> None:
    later = replace(named("/files/tiny"), shape=replace(SHAPE, slots=16, ranks=4))
    starts = [recording(1, 2, 3), Recording(later, [window(9)])]
    [found] = initials_of(starts, last)
    wanted = sum(window(step).load for step in used)
    assert found.load is not None and found.placement is None
    assert np.array_equal(found.load, wanted)
    assert found.windows == len(used)


def test_each_model_has_its_own_load(tmp_path: Path) -> None:
    for index, steps in enumerate([(1, 2), (3, 4)]):
        write(writer_in(tmp_path, model_index=index), *steps)
    target, drafter = initials_of(read_any(tmp_path))
    assert (target.model_index, drafter.model_index) == (0, 1)
    assert np.array_equal(drafter.rows, window(3).load + window(4).load)


def test_what_is_told_to_other_ranks_is_what_was_read() -> None:
    [found] = initials_of([recording(1, 2)])
    assert Initial.of_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_layer_without_load_is_refused() -> None:
    one = window(1)
    one.slices[:, 1] = 0
    with pytest.raises(InitialError, match="org/Tiny: layer 1 has no load"):
        initials_of([Recording(named("org/Tiny"), [one])])
    with pytest.raises(InitialError, match="neither a load window nor a placement"):
        initials_of([Recording(named("org/Tiny"), [])])


@pytest.mark.parametrize(
    "name",
    [
        "org/Some-MoE",
        "Some-MoE",
        "/models/Some-MoE/",
        "./some-moe",
        "D:\\models\\Some-MoE",
        "/cache/models--org--Some-MoE/snapshots/1f2e",
        "org/Some-MoE (draft)",
    ],
)
def test_a_name_stays_the_same_wherever_the_files_are(name: str) -> None:
    assert base_name(name) == "some-moe"
    found = initial_for([initial(name)], "org/Some-MoE", 0, any_name=False)
    assert found is not None and found.model == name


def test_another_model_is_refused_unless_any_name_will_do() -> None:
    recorded = [initial("org/Tiny"), initial("org/Tiny", index=1)]
    with pytest.raises(
        InitialError, match=r"it is of org/Tiny, and mine/Tuned is served.*any_name"
    ):
        initial_for(recorded, "mine/Tuned", 0, any_name=False)
    assert initial_for(recorded, "mine/Tuned", 0, any_name=True) == recorded[0]
    with pytest.raises(InitialError, match="2 models that org/Tiny may be"):
        initial_for([recorded[0], initial(shape=Shape(2, 8, 8, 2))], "org/Tiny", 0, any_name=False)


def test_a_drafter_that_was_not_recorded_is_left_alone_and_a_model_is_not() -> None:
    assert initial_for([initial()], "org/Tiny", 1, any_name=False) is None
    with pytest.raises(InitialError, match="it is of drafters only"):
        initial_for([initial(index=1)], "org/Tiny", 0, any_name=False)


@pytest.mark.parametrize("windows", [0, 1])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layers": 4}, "4 MoE layers, and 3 are served"),
        ({"experts": 6}, "6 logical experts, and 8 are served"),
        ({"slots": 16}, "16 slots, and 12 are served"),
        ({"ranks": 4}, "4 EP ranks, and 2 are served"),
    ],
)
def test_loads_fit_any_ranks_and_slots_and_placements_their_own(
    windows: int, changed: dict[str, int], said: str
) -> None:
    shape = replace(SHAPE, **changed)
    width = shape.experts if windows else shape.slots
    found = Initial("org/Tiny", 0, shape, windows, ((0,) * width,) * shape.layers)
    if windows and ("slots" in changed or "ranks" in changed):
        require_fit(found, layers=3, experts=8, slots=12, ranks=2)
    else:
        with pytest.raises(InitialError, match=said):
            require_fit(found, layers=3, experts=8, slots=12, ranks=2)


def test_of_several_placements_of_a_model_the_last_one_counts(tmp_path: Path) -> None:
    rows = [in_force(step).physical_to_logical.tolist() for step in (1, 2)]
    event = {"event": "placement", "model": "org/Tiny", "model_index": 0, "num_ranks": 2}
    file = placement_file(tmp_path, *({**event, "physical_to_logical_map": one} for one in rows))
    [found] = initials_of(read_any(file))
    assert found.shape == SHAPE
    assert found.load is None
    assert found.placement is not None and found.placement.tolist() == rows[1]
    require_fit(found, layers=3, experts=8, slots=12, ranks=2)


def test_a_placement_that_does_not_name_its_ranks_fits_any(tmp_path: Path) -> None:
    rows = in_force(1).physical_to_logical.tolist()
    said = {"model": "org/Tiny", "physical_to_logical_map": rows}
    file = tmp_path / "one.json"
    file.write_text(json.dumps(said, indent=2))
    [found] = initials_of(read_any(file))
    require_fit(found, layers=3, experts=8, slots=12, ranks=4)


@pytest.mark.parametrize(
    ("content", "model", "has_load"),
    [
        ({"logical_count": [[0, 0], [3, 4], [5, 6]]}, "", True),
        ({"model_maps": {"org/Tiny": {"counts": [[3, 4], [5, 6]]}}}, "org/Tiny", True),
        ({"3": [0, 1, 1], "4": [1, 0, 0]}, "", False),
    ],
    ids=["sglang", "hygon", "vllm #53022"],
)
def test_files_of_others_are_of_the_model_that_is_served(
    content: Any, model: str, has_load: bool, tmp_path: Path
) -> None:
    [found] = initials_of(read_any(placement_file(tmp_path, content)))
    assert (found.model, found.shape.layers, found.shape.experts) == (model, 2, 2)
    assert (found.load is not None) is has_load
    assert initial_for([found], "/models/Tiny", 0, any_name=not model) == found
    assert initial_for([found], "/models/Tiny", 1, any_name=True) is None


ROWS = in_force(1).physical_to_logical.tolist()


def placement_of_others(folder: Path, kind: str, rows: dict[int, Any]) -> Path:
    file = folder / f"map.{kind}"
    if kind == "json":
        file.write_text(json.dumps({str(number): row for number, row in rows.items()}))
    else:
        slots = len(next(iter(rows.values())))
        content = {"num_slots": slots, "initial_global_assignments": rows}
        file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("kind", ["json", "yaml"])
@pytest.mark.parametrize("numbers", [(0, 1, 2), (3, 4, 5), (58, 60, 59), (1, 3, 5)])
def test_a_placement_of_others_has_layers_by_their_numbers_of_a_model_without_a_name(
    kind: str, numbers: tuple[int, ...], tmp_path: Path
) -> None:
    in_order = dict(zip(sorted(numbers), ROWS, strict=True))
    file = placement_of_others(tmp_path, kind, {number: in_order[number] for number in numbers})
    initials = initials_of(read_any(file))
    with pytest.raises(InitialError, match=r"does not name, and org/Tiny is served.*any_name"):
        initial_for(initials, "org/Tiny", 0, any_name=False)
    found = initial_for(initials, "org/Tiny", 0, any_name=True)
    assert found is not None and found.placement is not None
    assert found.placement.tolist() == ROWS
    for ranks in (2, 4):
        require_fit(found, layers=3, experts=8, slots=12, ranks=ranks)


@pytest.mark.parametrize("kind", ["json", "yaml"])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({4: [8, 9, *ROWS[1][2:]]}, "layer 3 of a placement has no slot for expert 8"),
        ({4: [-1, *ROWS[1][1:]]}, "layer 4 of a placement names expert -1"),
        ({4: [0] * 12}, "layer 4 of a placement has no slot for expert 1"),
        ({4: ROWS[1][1:]}, "layer 4 has not as many slots as layer 3"),
        ({4: "0, 1"}, "layer 4 has not as many slots as layer 3"),
        ({7: ROWS[2]}, "layer 6 is missing, between 5 and 7"),
    ],
)
def test_a_wrong_placement_of_others_is_told_with_file_layer_and_rule(
    kind: str, changed: dict[int, Any], said: str, tmp_path: Path
) -> None:
    file = placement_of_others(tmp_path, kind, dict(enumerate(ROWS, start=3)) | changed)
    with pytest.raises(RecordingError, match=said) as refused:
        read_any(file)
    assert str(refused.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:2], "unnamed: the placement is of 2 MoE layers, and 3 are served"),
        ([[*row, 0, 1] for row in ROWS], "unnamed: the placement is of 14 slots, and 12 are"),
        ([[n % 6 for n in range(12)]] * 3, "unnamed: the placement is of 6 logical experts, and 8"),
    ],
)
def test_a_placement_of_others_for_another_shape_is_refused(
    rows: list[list[int]], said: str, tmp_path: Path
) -> None:
    file = placement_of_others(tmp_path, "json", dict(enumerate(rows, start=3)))
    [found] = initials_of(read_any(file))
    with pytest.raises(InitialError, match=said):
        require_fit(found, layers=3, experts=8, slots=12, ranks=2)


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([], "no JSON object is in it"),
        (["[1]"], r"\"\[1\]\" is no JSON object"),
        ([{"model": 3, "physical_to_logical_map": [[0]]}], "model is 3, no str"),
        ([{"model": "a", "num_ranks": "2", "physical_to_logical_map": [[0]]}], "num_ranks is '2'"),
        ([{"physical_to_logical_map": [[0]]}], "an object has no 'model'"),
        ([{"model": "a", "physical_to_logical_map": []}], "not a list of each layer's slots"),
        ([{"model": "a", "physical_to_logical_map": [[0, 1], [1]]}], "layer 1 has not as many"),
        ([{"model": "a", "physical_to_logical_map": [[0, 1.5]]}], "layer 0, slot 1 has 1.5"),
        ([{"model": "a", "physical_to_logical_map": [[0, True]]}], "layer 0, slot 1 has True"),
        ([{"model": "a", "physical_to_logical_map": [[0, 1], [0, -1]]}], "layer 1 .* expert -1"),
        ([{"model": "a", "physical_to_logical_map": [[0, 2]]}], "no slot for expert 1"),
        (
            [{"model": "a", "num_ranks": 2, "physical_to_logical_map": [[0, 1, 0]]}],
            "3 slots cannot be shared by 2",
        ),
    ],
)
def test_what_is_no_placement_is_told_with_file_and_layer(
    objects: list[Any], said: str, tmp_path: Path
) -> None:
    file = placement_file(tmp_path, *objects)
    with pytest.raises(RecordingError, match=said) as error:
        initials_of(read_any(file))
    assert str(error.value).startswith(f"{file}: ")


@pytest.mark.parametrize("name", ["none.json", "none"])
def test_what_is_not_there_is_told_by_its_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=f"{tmp_path / name}: No such file or directory"):
        read_any(tmp_path / name)
