# SPDX-License-Identifier: Apache-2.0
"""From recordings to other projects' files, and back."""

from pathlib import Path

from vllm_eplb_plugin.recording.formats import FORMATS, Held, read_held
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import (
    InForce,
    Recording,
    RecordingError,
    Served,
    Shape,
    Window,
)
from vllm_eplb_plugin.recording.rotation import Rotation
from vllm_eplb_plugin.recording.told_events import read_events
from vllm_eplb_plugin.recording.writer import RecordingWriter

OWN = "recording"


def convert_to(
    source: Path, target: Path, to: str, model_index: int, first_layer: int, ranks: int
) -> None:
    """Write what one file or folder holds as another kind of file.

    Args:
        source: A recording, a folder of events, or a file of `formats.FORMATS`.
        target: A folder for `OWN`, else a file.
        to: `OWN`, or a name of `formats.FORMATS`.
        model_index: Which model of a recording.
        first_layer: The number of the first MoE layer among all layers of the model.
        ranks: EP ranks, where the source does not say how many.

    Raises:
        RecordingError: The source cannot be read or does not hold what the target needs, or the
            target is there.
        OSError: The target cannot be written.
    """
    if to != OWN and to not in FORMATS:
        raise RecordingError(f"{to!r} is none of {', '.join([OWN, *FORMATS])}")
    if target.exists():
        raise RecordingError(f"{target} is there already: name another")
    if is_of_events(source) or is_recording(source):
        read = read_events if is_of_events(source) else read_recordings
        found = [one for one in read(source) if one.served.model_index == model_index]
        if not found:
            raise RecordingError(f"{source}: no model {model_index} is in it")
        last = found[-1]
    elif to == OWN:
        last = _as_recording(source, ranks)
    else:
        _write_held(_only(source), source, target, to, first_layer)
        return
    if to == OWN:
        write_recording(last, target)
    else:
        _write_held(_as_held(last), source, target, to, first_layer)


def write_recording(recording: Recording, folder: Path) -> None:
    """Write a recording that is in memory into a new folder.

    Raises:
        OSError: It cannot be written.
    """
    writer = RecordingWriter(folder, recording.served, Rotation(folder, 2**63))
    for placement in recording.placements:
        writer.placed(placement)
    for window in recording.windows:
        writer.taken(window)
    for ended in recording.outcomes:
        writer.ended(ended)
    for _ in writer.write():
        pass


def is_recording(source: Path) -> bool:
    if source.suffix != ".safetensors":
        return source.is_dir()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, framework="numpy") as opened:
            return "schema" in (opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise RecordingError(f"{source}: it cannot be read: {error}") from error


def is_of_events(source: Path) -> bool:
    return source.is_dir() and any(source.glob("rank*.jsonl"))


def _only(source: Path) -> Held:
    held = read_held(source)
    if len(held) != 1:
        names = ", ".join(one.model for one in held)
        raise RecordingError(f"{source}: it has the models {names}, and one is needed")
    return held[0]


def _write_held(held: Held, source: Path, target: Path, to: str, first_layer: int) -> None:
    try:
        FORMATS[to].write(held, target, first_layer)
    except RecordingError as error:
        raise RecordingError(f"{source}: {error}, and {to} needs one") from error


def _as_held(recording: Recording) -> Held:
    load = sum(window.load for window in recording.windows[1:]) + recording.windows[0].load
    placement = recording.placements[-1].physical_to_logical if recording.placements else None
    return Held(recording.served.model, load, placement)


def _as_recording(source: Path, ranks: int) -> Recording:
    """One window, of which neither steps nor time are known."""
    held = _only(source)
    if held.load is None:
        raise RecordingError(f"{source}: there is no load in it, and a recording needs one")
    layers, experts = held.load.shape
    slots = experts if held.placement is None else held.placement.shape[1]
    try:
        shape = Shape(layers, experts, slots, ranks)
    except ValueError as error:
        raise RecordingError(f"{source}: {error}; say how many with --ranks") from error
    served = Served(held.model, 0, shape, (0,) * layers, "", None, None)
    placements = () if held.placement is None else (InForce(0, 0.0, held.placement),)
    return Recording(served, (Window(1, 0.0, held.load[None]),), placements)
