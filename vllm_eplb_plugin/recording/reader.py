# SPDX-License-Identifier: Apache-2.0
"""Reads recordings that `recording.writer` wrote, and says what of a folder is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vllm_eplb_plugin.recording.layout import outcomes_of, place_of, served_of
from vllm_eplb_plugin.recording.placement_rows import refuse_invalid
from vllm_eplb_plugin.recording.recording import Ended, InForce, Recording, Served, Shape, Window
from vllm_eplb_plugin.recording.recording import RecordingError as RecordingError

_Integers = NDArray[np.integer]


def read_recordings(path: Path) -> list[Recording]:
    """Read what one folder or file holds.

    Args:
        path: The folder of the setting `recording`, that of one start of a server in it, or one
            file.

    Returns:
        One for each start of a server and each of its models, the older start first.

    Raises:
        RecordingError: It holds none, or one that is damaged elsewhere than at its end.
    """
    if path.is_file():
        return [_merge([_read(path)], ())]
    found = [
        _read_in_order(files)
        for folder in (path, *sorted(one for one in _entries(path) if one.is_dir()))
        for files in _files_of_models(folder)
    ]
    if not found:
        raise RecordingError(f"{path}: no model<N>-<NUMBER>.safetensors is in it")
    return found


def is_recording(path: Path) -> bool:
    """Say whether `read_recordings` is to read it: a folder, or a file with our schema."""
    if path.suffix != ".safetensors":
        return path.is_dir()
    try:
        with safe_open(path, framework="numpy") as opened:
            return "schema" in (opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise RecordingError(f"{path}: it cannot be read: {error}") from error


@dataclass(frozen=True)
class _Part:
    """What one file holds."""

    file: Path
    served: Served
    windows: list[Window]
    placements: list[InForce]
    outcomes: list[Ended]
    lost: int


class _UnreadableError(RecordingError):
    """A file that is cut off."""


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise RecordingError(f"{folder}: {error.strerror}") from error


def _files_of_models(folder: Path) -> Iterator[list[Path]]:
    """Of each model, its files in order."""
    places = {place: file for file in _entries(folder) if (place := place_of(file)) is not None}
    for index in sorted({place.model_index for place in places}):
        yield [places[place] for place in sorted(places) if place.model_index == index]


def _read_in_order(files: list[Path]) -> Recording:
    parts, warnings = [], []
    for file in files:
        try:
            parts.append(_read(file))
        except _UnreadableError as error:
            if file != files[-1] or len(files) == 1:
                raise
            warnings.append(f"{error}; it is the last, and left out")
    return _merge(parts, tuple(warnings))


def _merge(parts: list[_Part], warnings: tuple[str, ...]) -> Recording:
    served = parts[0].served
    for part in parts:
        if part.served != served:
            raise RecordingError(f"{part.file}: something else was served than in {parts[0].file}")
    windows = [window for part in parts for window in part.windows]
    if not windows:
        raise RecordingError(f"{parts[0].file}: no load window is in it")
    if lost := parts[-1].lost:
        warnings = (*warnings, f"{parts[-1].file}: {lost} windows could not be written until then")
    # Each file begins with the placement that the one before ends with.
    placements = {one.step: one for part in parts for one in part.placements}
    outcomes = tuple(one for part in parts for one in part.outcomes)
    try:
        return Recording(served, windows, tuple(placements.values()), outcomes, warnings)
    except ValueError as error:
        raise RecordingError(f"{parts[0].file.parent}: {error}") from error


def _read(file: Path) -> _Part:
    with _named(file):
        with _opened(file) as (metadata, tensors):
            served = served_of(metadata)
            if (place := place_of(file)) and place.model_index != served.model_index:
                raise RecordingError(f"it is of model {served.model_index}, says its metadata")
            windows = list(_windows(tensors, served.shape))
            placements = list(_placements(tensors, served.shape))
        return _Part(
            file, served, windows, placements, outcomes_of(metadata), _count(metadata, "lost")
        )


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Name the file in what is raised inside."""
    try:
        yield
    except RecordingError as error:
        raise type(error)(f"{file}: {error}") from error


@contextmanager
def _opened(file: Path) -> Iterator[tuple[dict[str, str], "_Tensors"]]:
    try:
        with safe_open(file, framework="numpy") as opened:
            yield opened.metadata() or {}, _Tensors(opened)
    except (SafetensorError, OSError) as error:
        raise _UnreadableError(f"it cannot be read: {error}") from error


class _Tensors:
    """The tensors of a file, by their names."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self._names = set(opened.keys())

    def integers(self, name: str, *shape: int | None) -> _Integers:
        """Get one of integers; None in its shape: so many as there are."""
        tensor = self._get(name, *shape)
        if tensor.dtype.kind not in "iu":
            raise RecordingError(f"{name} are {tensor.dtype}, no integers")
        return tensor

    def times(self, name: str, length: int) -> NDArray[np.float64]:
        """Get Unix seconds."""
        tensor = self._get(name, length)
        if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
            raise RecordingError(f"{name} are no finite seconds")
        return tensor

    def _get(self, name: str, *shape: int | None) -> NDArray[Any]:
        if name not in self._names:
            raise RecordingError(f"it has no tensor {name!r}")
        tensor: NDArray[Any] = self._opened.get_tensor(name)
        fits = all(said in (None, there) for said, there in zip(shape, tensor.shape, strict=False))
        if len(tensor.shape) != len(shape) or not fits:
            said = ", ".join("any" if one is None else str(one) for one in shape)
            raise RecordingError(f"{name} have the shape {list(tensor.shape)}, not [{said}]")
        return tensor


def _windows(tensors: _Tensors, shape: Shape) -> Iterator[Window]:
    loads = tensors.integers("loads", None, shape.layers, shape.experts)
    _refuse_negative(loads)
    slices = tensors.integers("slices", None)
    if int(slices.sum()) != len(loads) or (slices < 1).any():
        raise RecordingError(f"slices are {slices.tolist()}, of {len(loads)} in loads")
    steps = tensors.integers("window_steps", len(slices))
    times = tensors.times("window_times", len(slices))
    ends = np.cumsum(slices.astype(np.int64))
    for step, time, end, count in zip(steps, times, ends, slices, strict=True):
        of_window = loads[end - int(count) : end].astype(np.int64)
        yield Window(int(step), float(time), of_window)


def _refuse_negative(loads: _Integers) -> None:
    if loads.dtype.kind == "i" and (loads < 0).any():
        layer = int(np.argwhere((loads < 0).any(axis=(0, 2)))[0, 0])
        raise RecordingError(f"loads of layer {layer} are below 0")


def _placements(tensors: _Tensors, shape: Shape) -> Iterator[InForce]:
    placements = tensors.integers("placements", None, shape.layers, shape.slots).astype(np.int64)
    steps = tensors.integers("placement_steps", len(placements))
    times = tensors.times("placement_times", len(placements))
    for step, time, placement in zip(steps, times, placements, strict=True):
        refuse_invalid(placement, shape.experts)
        yield InForce(int(step), float(time), placement)


def _count(metadata: dict[str, str], name: str) -> int:
    try:
        return int(metadata[name])
    except (KeyError, ValueError) as error:
        raise RecordingError(f"its metadata have no number {name!r}") from error
