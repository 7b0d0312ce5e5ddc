# SPDX-License-Identifier: Apache-2.0
"""What was recorded is read as it was, up to where it is damaged, and what is wrong is named."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.builders.recordings import SHAPE, in_force, served, window, write, writer_in
from vllm_eplb_plugin.recording import writer as writer_module
from vllm_eplb_plugin.recording.layout import smallest
from vllm_eplb_plugin.recording.reader import RecordingError, read_recordings
from vllm_eplb_plugin.recording.recording import Shape
from vllm_eplb_plugin.recording.writer import MOST_SECONDS, MOST_WAITING, in_few_slices


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def rewrite(file: Path, metadata: dict[str, str] | None = None, **tensors: Any) -> None:
    """Another file, which differs in this."""
    with safe_open(file, framework="numpy") as opened:
        kept = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        said = opened.metadata()
    save_file(kept | tensors, file, said | (metadata or {}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of two rearrangements each."""
    writer = writer_in(tmp_path)
    writer.placed(in_force(0))
    for step in (10, 30, 50):
        write(writer, step, step + 10)
    return tmp_path


def test_files_are_read_as_one_recording_in_order(folder: Path) -> None:
    assert len(files_of(folder)) == 3
    [recording] = read_recordings(folder)
    assert recording.served == served()
    assert [one.step for one in recording.windows] == [10, 20, 30, 40, 50, 60]
    for one in recording.windows:
        assert one.slices.tolist() == window(one.step).slices.tolist()
        assert one.slices.dtype == np.int64
        assert one.time == 1000.0 + one.step
    assert [one.step for one in recording.placements] == [0, 10, 20, 30, 40, 50, 60]
    for placed in recording.placements:
        expected = in_force(placed.step).physical_to_logical
        assert placed.physical_to_logical.tolist() == expected.tolist()
    assert [(one.step, one.outcome) for one in recording.outcomes] == [
        (step, "finished") for step in (10, 20, 30, 40, 50, 60)
    ]
    assert recording.warnings == ()


def test_a_file_alone_has_the_placement_that_was_in_force(folder: Path) -> None:
    [recording] = read_recordings(files_of(folder)[1])
    assert [one.step for one in recording.windows] == [30, 40]
    assert [one.step for one in recording.placements] == [20, 30, 40]


def test_each_start_and_each_model_is_a_recording(folder: Path) -> None:
    drafter = writer_in(folder, model_index=1)
    write(drafter, 10)
    shutil.copytree(folder / "start", folder / "start again")
    found = read_recordings(folder)
    assert [one.served.model_index for one in found] == [0, 1, 0, 1]
    assert len(read_recordings(folder / "start again")) == 2


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_last_file_that_is_cut_off_is_left_out_and_that_is_told(folder: Path, size: int) -> None:
    last = files_of(folder)[-1]
    last.write_bytes(last.read_bytes()[:size])
    [recording] = read_recordings(folder)
    assert [one.step for one in recording.windows] == [10, 20, 30, 40]
    [warning] = recording.warnings
    assert warning.startswith(f"{last}: it cannot be read")


def test_what_a_crash_left_beside_its_place_is_not_read(folder: Path) -> None:
    (folder / "start" / ".model0-000004.safetensors.partial").write_bytes(b"half")
    assert len(read_recordings(folder)[0].windows) == 6


def test_a_file_amid_others_that_is_cut_off_is_refused(folder: Path) -> None:
    second = files_of(folder)[1]
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(RecordingError, match=f"{second}: it cannot be read"):
        read_recordings(folder)


def negative() -> Any:
    loads = np.ones((4, 3, 8), np.int64)
    loads[1, 2, 3] = -1
    return loads


def without(expert: int, other: int, layer: int) -> Any:
    rows = np.stack([in_force(step).physical_to_logical for step in (0, 10, 20)])
    rows[1, layer][rows[1, layer] == expert] = other
    return rows


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metadata": {"schema": "vllm-eplb-plugin recording 2"}}, "its schema is '.* 2', not"),
        ({"metadata": {"served": "{}"}}, "its metadata do not say what was served"),
        ({"metadata": {"outcomes": "1"}}, "do not say how rearrangements ended"),
        ({"metadata": {"lost": "many"}}, "no number 'lost'"),
        ({"loads": negative()}, "loads of layer 2 are below 0"),
        ({"loads": np.full((4, 3, 8), np.nan)}, "loads are float64, no integers"),
        ({"loads": np.ones((4, 5, 8), np.uint8)}, r"loads have the shape \[4, 5, 8\], not \[any"),
        ({"loads": np.ones((3, 3, 8), np.uint8)}, r"slices are \[2, 2\], of 3 in loads"),
        ({"slices": np.array([4, 0])}, r"slices are \[4, 0\]"),
        ({"window_steps": np.array([20, 10])}, "steps do not go up"),
        ({"window_times": np.array([1.0, np.inf])}, "window_times are no finite seconds"),
        ({"placements": without(3, 4, 1)}, "layer 1 of a placement has no slot for expert 3"),
        ({"placements": without(3, 8, 2)}, "layer 2 of a placement names expert 8, of 8 from 0"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_file_and_rule(
    folder: Path, changed: dict[str, Any], message: str
) -> None:
    rewrite(files_of(folder)[0], **changed)
    with pytest.raises(RecordingError, match=message) as refused:
        read_recordings(folder)
    assert str(folder / "start") in str(refused.value)


def test_a_file_of_another_kind_is_none(tmp_path: Path) -> None:
    file = tmp_path / "counts.safetensors"
    save_file({"model": np.ones((3, 8), np.float32)}, file, {"version": "1"})
    with pytest.raises(
        RecordingError, match="counts.safetensors: it is no recording; `vllm-eplb c"
    ):
        read_recordings(file)


def test_nothing_and_no_window_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        read_recordings(tmp_path / "none")
    with pytest.raises(RecordingError, match="no model<N>-<NUMBER>"):
        read_recordings(tmp_path)
    writer = writer_in(tmp_path)
    write(writer, 10)
    [file] = files_of(tmp_path)
    loads = np.zeros((0, 3, 8), np.uint8)
    nothing = np.zeros(0, np.int64)
    rewrite(file, loads=loads, slices=nothing, window_steps=nothing, window_times=np.zeros(0))
    with pytest.raises(RecordingError, match=f"{file}: no load window is in it"):
        read_recordings(tmp_path)


def test_files_of_other_models_are_not_merged(folder: Path) -> None:
    other = writer_in(folder.parent / f"{folder.name}-other", replace(SHAPE, nodes=2))
    write(other, 70)
    [file] = files_of(folder.parent / f"{folder.name}-other")
    shutil.copy(file, folder / "start" / "model0-000004.safetensors")
    with pytest.raises(RecordingError, match="something else was served than in"):
        read_recordings(folder)


def test_the_oldest_files_go_and_nothing_else(tmp_path: Path) -> None:
    stranger = tmp_path / "start" / "notes.txt"
    stranger.parent.mkdir()
    stranger.write_text("mine")
    write(writer_in(tmp_path), 10)
    size = files_of(tmp_path)[0].stat().st_size
    # A start later: of its files there is room for two and a half.
    writer = writer_in(tmp_path, model_index=1, max_bytes=int(2.5 * size))
    for step in range(10, 60, 10):
        write(writer, step)
        assert sum(file.stat().st_size for file in files_of(tmp_path)) <= 2.5 * size
    assert [file.name for file in files_of(tmp_path)] == [
        "model1-000004.safetensors",
        "model1-000005.safetensors",
    ]
    assert stranger.read_text() == "mine"
    [recording] = read_recordings(tmp_path)
    assert [one.step for one in recording.placements] == [30, 40, 50]


def test_files_of_earlier_starts_go_by_their_age(tmp_path: Path) -> None:
    write(writer_in(tmp_path, model_index=1), 10)
    write(writer_in(tmp_path, model_index=0), 10)
    older, newer = sorted(files_of(tmp_path), reverse=True)
    os.utime(older, (1000, 1000))
    os.utime(newer, (2000, 2000))
    write(writer_in(tmp_path, model_index=2, max_bytes=int(2.5 * older.stat().st_size)), 10)
    assert [file.name[:6] for file in files_of(tmp_path)] == ["model0", "model2"]


def test_the_newest_file_stays_however_large(tmp_path: Path) -> None:
    writer = writer_in(tmp_path, max_bytes=1)
    write(writer, 10)
    write(writer, 20)
    assert [one.step for one in read_recordings(tmp_path)[0].windows] == [20]


def test_a_full_disk_costs_windows_that_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    writer = writer_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "save_file", full)
        with pytest.raises(OSError, match="cannot be written: No space left"):
            write(writer, 10, 20)
    assert not list((tmp_path / "start").iterdir())
    write(writer, 30)
    [recording] = read_recordings(tmp_path)
    assert [one.step for one in recording.windows] == [30]
    assert [one.step for one in recording.placements] == [20, 30]
    assert "2 windows could not be written" in recording.warnings[0]


def test_a_file_is_due_when_enough_waits_or_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    writer = writer_in(tmp_path)
    writer.placed(in_force(0))
    now[0] += 10 * MOST_SECONDS
    assert not writer.is_due()  # a placement alone waits for a window
    for step in range(1, MOST_WAITING):
        writer.taken(window(step))
    assert not writer.is_due()
    now[0] += MOST_SECONDS
    assert writer.is_due()
    write(writer)
    assert not writer.is_due()
    for step in range(100, 100 + MOST_WAITING):
        writer.taken(window(step))
    assert writer.is_due()


def test_of_one_step_the_last_placement_and_the_first_window_count(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.placed(in_force(0))
    writer.placed(replace(in_force(1), step=0))
    writer.taken(window(10))
    writer.taken(replace(window(11), step=10))
    write(writer)
    [recording] = read_recordings(tmp_path)
    [placed], [only] = recording.placements, recording.windows
    assert placed.physical_to_logical.tolist() == in_force(1).physical_to_logical.tolist()
    assert only.slices.tolist() == window(10).slices.tolist()


@given(st.lists(st.integers(0, 2**63 - 1), max_size=8))
@settings(max_examples=60)
def test_the_smallest_dtype_holds_every_number(numbers: list[int]) -> None:
    stored = smallest(np.array(numbers, np.int64))
    assert stored.tolist() == numbers
    assert stored.dtype.kind == "u"
    smaller = 8 * stored.dtype.itemsize // 2
    assert smaller < 8 or max(numbers) >= 2**smaller


@given(st.integers(1, 30))
@settings(max_examples=30)
def test_few_slices_have_the_tokens_of_all_parts_in_order(count: int) -> None:
    parts = np.random.default_rng(count).integers(0, 2**31 - 1, (count, 2, 3)).astype(np.int32)
    slices = in_few_slices(parts)
    assert len(slices) == min(count, 4)
    assert slices.sum(axis=0).tolist() == parts.astype(np.int64).sum(axis=0).tolist()
    newest = count // min(count, 4)
    assert slices[-1].tolist() == parts[-newest:].astype(np.int64).sum(axis=0).tolist()


def test_a_day_of_deepseek_v3_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    """A file has one window, as where windows come each 90 s: the most that files cost."""
    shape = Shape(layers=58, experts=256, slots=288, ranks=32, nodes=4, groups=8)
    writer = writer_in(tmp_path, shape)
    # 32 ranks with 512 tokens a step, 1,000 steps, top 8 of 256; at most 20 times the mean.
    highest = 20 * 32 * 512 * 1000 * 8 // 256 // 4
    for step in (1, 2):
        writer.taken(window(step, shape, slices=4, highest=highest))
        writer.placed(in_force(step, shape))
        write(writer)
    per_window = files_of(tmp_path)[-1].stat().st_size
    assert per_window * (24 * 3600 // 90) < 400_000_000
