# SPDX-License-Identifier: Apache-2.0
"""Whatever holds loads or placements: recordings, events, placements, and others' files."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vllm_eplb_plugin.recording.formats import Held, read_held
from vllm_eplb_plugin.recording.placement_file import (
    UNKNOWN_RANKS,
    is_of_placements,
    read_placements,
)
from vllm_eplb_plugin.recording.reader import is_recording, read_recordings
from vllm_eplb_plugin.recording.recording import (
    InForce,
    Recording,
    RecordingError,
    Served,
    Shape,
    Window,
)
from vllm_eplb_plugin.recording.told_events import is_of_events, read_events


class Source(NamedTuple):
    """A kind of folder or file that the plugin writes."""

    is_it: Callable[[Path], bool]
    read: Callable[[Path], list[Recording]]


OURS = (
    Source(is_of_events, read_events),
    Source(is_recording, read_recordings),
    Source(is_of_placements, read_placements),
)
"""The first that it is, is read; what is none is another project's, of `formats.FORMATS`."""


def read_any(path: Path) -> list[Recording]:
    """Read what a folder or file holds, whoever wrote it; its kind is found by what is in it.

    Returns:
        For each model, of each start of a server, the older one first. Files of others are of the
        model that was served; those that do not name it have an empty name.

    Raises:
        RecordingError: It cannot be read.
    """
    if not path.exists():
        raise RecordingError(f"{path}: No such file or directory")
    ours = read_ours(path)
    return [as_recording(held) for held in read_held(path)] if ours is None else ours


def read_ours(path: Path) -> list[Recording] | None:
    """Read what the plugin wrote; None: another project did.

    Raises:
        RecordingError: It cannot be read.
    """
    for source in OURS:
        if source.is_it(path):
            return source.read(path)
    return None


def as_recording(held: Held, ranks: int = UNKNOWN_RANKS) -> Recording:
    """Make one window at most, of which neither steps nor time are known.

    Raises:
        ValueError: So many ranks cannot share its slots.
    """
    windows: tuple[Window, ...] = ()
    placements: tuple[InForce, ...] = ()
    layers = experts = slots = 0
    if held.placement is not None:
        placements = (InForce(0, 0.0, held.placement),)
        (layers, slots), experts = held.placement.shape, int(held.placement.max()) + 1
    if held.load is not None:
        windows = (Window(1, 0.0, held.load[None]),)
        layers, experts = held.load.shape
    shape = Shape(layers, experts, slots or experts, ranks)
    served = Served(held.model, 0, shape, (0,) * layers, "", None, None)
    return Recording(served, windows, placements)
