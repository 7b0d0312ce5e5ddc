# SPDX-License-Identifier: Apache-2.0
"""Writes the recording of one model, a file for so many windows, in a folder of bounded size."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from vllm_eplb_plugin.recording.layout import Place, smallest, stacked, written_metadata
from vllm_eplb_plugin.recording.recording import Ended, InForce, Served, Window
from vllm_eplb_plugin.recording.rotation import Rotation

MOST_WAITING = 8
"""Windows of a file, and so many are lost at most if the process ends at once."""
MOST_SECONDS = 60.0
"""For which one waits for others before its file is written."""
MOST_SLICES = 4
"""Of time, in a window."""


class RecordingWriter:
    """A writer collects what happens to one model and writes it file by file.

    It is used by one thread. A file is whole or not there: it is written beside its place, and then
    put there.
    """

    def __init__(self, folder: Path, served: Served, rotation: Rotation) -> None:
        """Write nothing yet.

        Args:
            folder: Of this start of the server; it is made with the first file.
            served: What is served.
            rotation: Bounds the folder, with all that is in it.
        """
        self.lost = 0
        """Windows that could not be written."""
        self._folder = folder
        self._served = served
        self._rotation = rotation
        self._number = 0
        self._windows: list[Window] = []
        self._placements: list[InForce] = []
        self._outcomes: list[Ended] = []
        self._since: float | None = None
        self._last_step = 0

    def placed(self, placement: InForce) -> None:
        """Take a placement that is in force now; one of the same step stands for the last.

        It is written with the next window, or with how its rearrangement ended.
        """
        if self._placements and self._placements[-1].step >= placement.step:
            placement = replace(placement, step=self._placements.pop().step)
        self._placements.append(placement)

    def ended(self, outcome: Ended) -> None:
        """Take how a rearrangement ended."""
        self._outcomes.append(outcome)
        self._waits()

    def taken(self, window: Window) -> None:
        """Take a window; one of a step that has one already adds nothing."""
        if window.step > self._last_step:
            self._last_step = window.step
            self._windows.append(window)
            self._waits()

    def is_due(self) -> bool:
        """Say whether enough waits, or something for long enough."""
        long_enough = self._since is not None and time.monotonic() - self._since >= MOST_SECONDS
        return long_enough or len(self._windows) >= MOST_WAITING

    def write(self) -> Iterator[None]:
        """Write what waits, if anything does.

        Yields:
            Between pieces, of which none takes the interpreter's lock for long.

        Raises:
            OSError: It cannot be written, and the windows are lost and counted; or an older file
                cannot be taken away.
        """
        if self._since is None:
            return
        windows, outcomes = self._windows, self._outcomes
        self._windows, self._outcomes, self._since = [], [], None
        try:
            tensors = dict(_tensors_of_windows(windows, self._served))
            yield
            tensors |= _tensors_of_placements(self._placements, self._served)
            yield
            file = self._put(tensors, written_metadata(self._served, outcomes, self.lost))
        except OSError:
            self.lost += len(windows)
            raise
        finally:
            self._placements = self._placements[-1:]
        self._rotation.added(file)

    def _put(self, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / Place(self._served.model_index, self._number + 1).name
        partial = file.with_name(f".{file.name}.partial")
        try:
            save_file(dict(tensors), partial, metadata)
            partial.replace(file)
        except Exception as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            # safetensors raises an error of its own where the disk is full.
            raise OSError(f"{file} cannot be written: {error}") from error
        self._number += 1
        return file

    def _waits(self) -> None:
        if self._since is None:
            self._since = time.monotonic()


def in_few_slices(parts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Add up neighbouring parts of a window until it has `MOST_SLICES` at most.

    Args:
        parts: ``[parts, layers, logical]``, the newest last.

    Returns:
        ``[slices, layers, logical]``; what is not shared evenly makes the older slices longer.
    """
    groups = np.array_split(parts.astype(np.int64, copy=False), min(len(parts), MOST_SLICES))
    return np.stack([group.sum(axis=0) for group in groups])


def _tensors_of_windows(
    windows: list[Window], served: Served
) -> Iterator[tuple[str, NDArray[Any]]]:
    shape = served.shape
    empty = np.zeros((0, shape.layers, shape.experts), np.int64)
    yield "loads", smallest(np.concatenate([empty, *(one.slices for one in windows)]))
    yield "slices", np.array([len(one.slices) for one in windows], np.int64)
    yield "window_steps", np.array([one.step for one in windows], np.int64)
    yield "window_times", np.array([one.time for one in windows], np.float64)


def _tensors_of_placements(placements: list[InForce], served: Served) -> dict[str, NDArray[Any]]:
    return {
        "placements": stacked(placements, served.shape),
        "placement_steps": np.array([one.step for one in placements], np.int64),
        "placement_times": np.array([one.time for one in placements], np.float64),
    }
