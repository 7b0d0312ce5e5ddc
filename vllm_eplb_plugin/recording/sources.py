# SPDX-License-Identifier: Apache-2.0
"""Whatever holds loads or placements: recordings, events, placements, and others' files."""

from pathlib import Path

from vllm_eplb_plugin.recording.conversion import is_of_events, is_recording
from vllm_eplb_plugin.recording.formats import Held, read_held
from vllm_eplb_plugin.recording.placement_file import (
    UNKNOWN_RANKS,
    is_of_placements,
    read_placements,
)
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import (
    InForce,
    Recording,
    RecordingError,
    Served,
    Shape,
    Window,
)
from vllm_eplb_plugin.recording.told_events import read_events


def read_any(path: Path) -> list[Recording]:
    """Read what a folder or file holds, whoever wrote it; its kind is found by what is in it.

    Returns:
        For each model, of each start of a server, the older one first. Files of others are of the
        model that was served; they may leave its name empty.

    Raises:
        RecordingError: It cannot be read.
    """
    if not path.exists():
        raise RecordingError(f"{path}: No such file or directory")
    if is_of_events(path):
        return read_events(path)
    if is_recording(path):
        return read_recordings(path)
    if is_of_placements(path):
        return read_placements(path)
    return [_as_recording(held) for held in read_held(path)]


def _as_recording(held: Held) -> Recording:
    """One window at most, of which neither steps nor time are known."""
    windows: tuple[Window, ...] = ()
    placements: tuple[InForce, ...] = ()
    layers = experts = slots = 0
    if held.placement is not None:
        placements = (InForce(0, 0.0, held.placement),)
        (layers, slots), experts = held.placement.shape, int(held.placement.max()) + 1
    if held.load is not None:
        windows = (Window(1, 0.0, held.load[None]),)
        layers, experts = held.load.shape
    shape = Shape(layers, experts, slots or experts, UNKNOWN_RANKS)
    served = Served(held.model, 0, shape, (0,) * layers, "", None, None)
    return Recording(served, windows, placements)
