# SPDX-License-Identifier: Apache-2.0
"""Other projects' files, written here from their descriptions, are read and written back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file
from typer.testing import CliRunner

from tests.builders.events import FIRST, told, write_events
from tests.builders.recordings import SHAPE, in_force, window, write, writer_in
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.observe.events import (
    Placement,
    RearrangementFinished,
    RearrangementPlanned,
    RearrangementSkipped,
    RearrangementStarted,
    Source,
)
from vllm_eplb_plugin.recording.conversion import convert_to
from vllm_eplb_plugin.recording.format_names import FOREIGN
from vllm_eplb_plugin.recording.formats import FORMATS, read_held
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import RecordingError
from vllm_eplb_plugin.recording.told_events import read_events

STEPS = (10, 20)
LOAD = sum(window(step).load for step in STEPS)
PLACED = in_force(20).physical_to_logical


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    folder = tmp_path / "recorded"
    write(writer_in(folder), *STEPS)
    return folder


def converted(source: Path, to: str, suffix: str, first_layer: int = 0) -> Path:
    target = source.parent / f"{to}{suffix}"
    convert_to(source, target, to, 0, first_layer, SHAPE.ranks)
    return target


def test_vllm_has_a_float32_tensor_for_a_model_name(recorded: Path) -> None:
    file = converted(recorded, "vllm", ".safetensors")
    with safe_open(file, framework="numpy") as opened:
        assert opened.metadata() == {"version": "1"}
        [name] = opened.keys()
        tensor = opened.get_tensor(name)
    assert (name, tensor.dtype) == ("tiny", np.float32)
    assert tensor.tolist() == LOAD.tolist()


def test_sglang_has_rows_for_layers_without_experts(recorded: Path) -> None:
    file = converted(recorded, "sglang", ".json", first_layer=2)
    counts = json.loads(file.read_text())["logical_count"]
    assert counts == [[0] * 8] * 2 + LOAD.tolist()
    [held] = read_held(file)
    assert held.load is not None and held.load.tolist() == LOAD.tolist()


def test_sglang_may_have_counts_of_several_moments(tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    file.write_text(json.dumps({"logical_count": [[[1, 2], [0, 0]], [[3, 4], [0, 0]]]}))
    [held] = read_held(file)
    assert held.load is not None and held.load.tolist() == [[4, 6]]


def test_an_expert_map_has_the_slots_of_each_layer(recorded: Path) -> None:
    file = converted(recorded, "expert-map", ".json", first_layer=3)
    written = json.loads(file.read_text())
    assert written == {str(3 + n): row for n, row in enumerate(PLACED.tolist())}


def test_layers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text('{"10": [1, 0], "9": [0, 1]}')
    [held] = read_held(file)
    assert held.placement is not None and held.placement.tolist() == [[0, 1], [1, 0]]


def test_tensorrt_llm_has_slots_and_assignments(recorded: Path) -> None:
    file = converted(recorded, "tensorrt-llm", ".yaml", first_layer=3)
    assert yaml.safe_load(file.read_text()) == {
        "num_slots": 12,
        "initial_global_assignments": {3 + n: row for n, row in enumerate(PLACED.tolist())},
    }


@pytest.mark.parametrize(("to", "suffix"), [("expert-map", ".json"), ("tensorrt-llm", ".yml")])
def test_a_placement_comes_back(recorded: Path, to: str, suffix: str) -> None:
    [held] = read_held(converted(recorded, to, suffix))
    assert held.placement is not None and held.placement.tolist() == PLACED.tolist()


@pytest.mark.parametrize(
    ("to", "suffix"), [("vllm", ".safetensors"), ("sglang", ".json"), ("hygon", ".json")]
)
def test_a_load_becomes_a_recording_of_one_window(recorded: Path, to: str, suffix: str) -> None:
    file = converted(recorded, to, suffix)
    [recording] = read_recordings(converted(file, "recording", ""))
    [only] = recording.windows
    assert only.load.tolist() == LOAD.tolist()
    assert recording.served.interval_steps is None
    assert [one.physical_to_logical.tolist() for one in recording.placements] == (
        [PLACED.tolist()] if to == "hygon" else []
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", "", "a .pt file is a pickle"),
        ("a.pkl", "", "a .pkl file is a pickle"),
        ("a.json", "{", "it is no JSON"),
        ("a.json", "[]", "it is no JSON object"),
        ("a.json", "{}", "it has no {LAYER: "),
        ("a.json", '{"logical_count": [[1, NaN]]}', "layer 0: the load of expert 1 is nan"),
        ("a.json", '{"logical_count": [[1, 2], [3, -1]]}', "layer 1: the load of expert 1 is -1"),
        ("a.json", '{"logical_count": [[1, 2], [3]]}', r"its load is no \[layers\]\[experts\]"),
        ("a.json", '{"logical_count": [[0, 0]]}', "logical_count is 0 everywhere"),
        ("a.json", '{"logical_count": [1, 2]}', r"has the shape \[2\], not"),
        ("a.json", '{"3": [0, 2]}', "layer 3 of a placement has no slot for expert 1"),
        ("a.json", '{"3": [0, -1]}', "layer 3 of a placement names expert -1"),
        ("a.json", '{"3": [0, 1], "4": [0]}', "layer 4 has not as many slots as layer 3"),
        (
            "a.json",
            '{"3": [0, 1], "4": [0, 1], "6": [0, 1]}',
            "layer 5 is missing, between 4 and 6",
        ),
        ("a.json", '{"3": [0, 1], "03": [0, 1]}', "a layer is in it twice"),
        ("a.json", '{"3": [0, 1.5]}', "layer 3, slot 1 has 1.5, no expert"),
        ("a.json", '{"3": [0, 2147483646]}', "layer 3 of a placement has no slot for expert 1"),
        ("a.json", '{"some": [0, 1]}', "it is no {LAYER: "),
        ("a.json", '{"model_maps": {"m": {}}}', "neither a load nor a placement"),
        ("a.json", '{"model_maps": [1]}', "model_maps are no {MODEL: "),
        (
            "a.json",
            '{"model_maps": {"m": {"counts": [[1, 2]], "physical_to_logical_map": [[0], [0]]}}}',
            "its load has 1 layers, its placement 2",
        ),
        ("a.yaml", "num_slots: [", "it is no YAML"),
        ("a.yaml", "num_slots: 3\ninitial_global_assignments: {1: [0, 1]}", "its layers have 2"),
        ("a.yaml", "num_slots: 3", "it has no {LAYER: "),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "it is no YAML"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_file_and_rule(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(RecordingError, match=message) as refused:
        read_held(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize("to", ["expert-map", "tensorrt-llm", "hygon"])
def test_a_placement_of_ours_becomes_one_of_others(to: str, tmp_path: Path) -> None:
    said = {"model": "tiny", "num_ranks": 2, "physical_to_logical_map": PLACED.tolist()}
    file = tmp_path / "placement.json"
    file.write_text(json.dumps(said))
    [held] = read_held(converted(file, to, ".yaml" if to == "tensorrt-llm" else ".json"))
    assert held.placement is not None and held.placement.tolist() == PLACED.tolist()
    with pytest.raises(RecordingError, match=f"{file}: there is no load in it"):
        converted(file, "vllm", ".safetensors")
    with pytest.raises(RecordingError, match=f"{file}: there is no load in it"):
        converted(file, "recording", "")


def test_the_command_names_every_format() -> None:
    assert tuple(FORMATS) == FOREIGN
    shown = CliRunner().invoke(main, ["convert", "--help"], env={"COLUMNS": "300"}).output
    assert f"One of recording, {', '.join(FOREIGN)}" in shown


def test_another_version_of_vllms_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"m": np.ones((2, 3), np.float32)}, file, {"version": "2"})
    with pytest.raises(RecordingError, match="a.safetensors: its metadata have version '2'"):
        read_held(file)


def test_a_target_that_is_there_is_not_overwritten(recorded: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("mine")
    with pytest.raises(RecordingError, match="is there already"):
        convert_to(recorded, there, "sglang", 0, 0, 1)
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "pickle"], "'pickle' is none of recording, vllm"),
        (["--to", "vllm", "--model-index", "1"], "no model 1 is in it"),
    ],
)
def test_the_command_says_what_is_wrong(recorded: Path, arguments: list[str], message: str) -> None:
    answer = CliRunner().invoke(main, ["convert", str(recorded), str(recorded / "x"), *arguments])
    assert answer.exit_code == 2
    assert message in answer.output


def test_events_become_the_windows_that_moved_experts(tmp_path: Path) -> None:
    first, second = in_force(0).physical_to_logical, in_force(1).physical_to_logical
    load = window(40).load

    def placed(number: int, step: int, rows: Any, load: Any, mode: Any) -> Placement:
        return Placement("tiny", 0, number, step, mode, 2, rows.tolist(), load)

    def moment(number: int, step: int) -> Any:
        return ("tiny", 0, number, step, "async")

    planned = RearrangementPlanned(
        *moment(1, 40), 3, 0.1, "vllm", [], "interval", 0.1, [2, 2, 2], [500, 268], [0, 0],
        0.5, 0.9, 0, 0,
    )  # fmt: skip
    lines = [
        told(1.0, placed(0, 0, first, None, None)),
        told(2.0, RearrangementStarted(*moment(1, 40))),
        told(2.5, planned),
        told(3.0, RearrangementFinished(*moment(1, 43), 1.0, 0.5, 0.9, [1, 1, 1], 768)),
        told(3.0, placed(1, 43, second, load.tolist(), "async")),
        told(4.0, RearrangementStarted(*moment(2, 80))),
        told(4.1, RearrangementSkipped(*moment(2, 80), 0.1, "nothing to gain")),
        '{"event": "cut o',
    ]
    # Another rank of the stage knows the same, and says what it alone knows.
    others = [told(2.0, RearrangementStarted(*moment(1, 40)), Source(1, 1, 0))]
    others += [told(3.0, placed(1, 43, second, load.tolist(), "async"), Source(1, 1, 0))]
    [recording] = read_events(write_events(tmp_path, lines, others))
    assert recording.served.shape == SHAPE
    assert recording.served.expert_bytes == (128,) * 3
    [only] = recording.windows
    assert (only.step, only.time, only.load.tolist()) == (40, 2.0, load.tolist())
    assert [one.step for one in recording.placements] == [0, 40]
    assert recording.placements[1].physical_to_logical.tolist() == second.tolist()
    assert [(one.step, one.outcome) for one in recording.outcomes] == [
        (40, "finished"),
        (80, "skipped"),
    ]
    (tmp_path / "rank1.jsonl").unlink()
    (tmp_path / "rank0.jsonl").write_text(lines[0] + "{\n" + lines[1])
    with pytest.raises(RecordingError, match="rank0.jsonl:2: it is no JSON"):
        read_events(tmp_path)
    write_events(tmp_path, [told(1.0, placed(0, 0, first, None, None), FIRST)])
    with pytest.raises(RecordingError, match="tells of experts that moved"):
        read_events(tmp_path)
