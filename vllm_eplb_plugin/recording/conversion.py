# SPDX-License-Identifier: Apache-2.0
"""From recordings to other projects' files, and back."""

from pathlib import Path

from vllm_eplb_plugin.recording.format_names import OWN
from vllm_eplb_plugin.recording.formats import FORMATS, Held, read_held
from vllm_eplb_plugin.recording.recording import Recording, RecordingError
from vllm_eplb_plugin.recording.rotation import Rotation
from vllm_eplb_plugin.recording.sources import as_recording, read_ours
from vllm_eplb_plugin.recording.writer import RecordingWriter


def convert_to(
    source: Path, target: Path, to: str, model_index: int, first_layer: int, ranks: int
) -> None:
    """Write what one file or folder holds as another kind of file.

    Args:
        source: What `sources.read_any` reads.
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
    if (ours := read_ours(source)) is None:
        held = _only(source)
        if to == OWN:
            write_recording(_with_load(held, source, ranks), target)
        else:
            _write_held(held, source, target, to, first_layer)
        return
    found = [one for one in ours if one.served.model_index == model_index]
    if not found:
        raise RecordingError(f"{source}: no model {model_index} is in it")
    if to != OWN:
        _write_held(_as_held(found[-1]), source, target, to, first_layer)
    elif not found[-1].windows:
        raise _without_load(source)
    else:
        write_recording(found[-1], target)


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
    windows, placements = recording.windows, recording.placements
    load = sum(one.load for one in windows[1:]) + windows[0].load if windows else None
    placement = placements[-1].physical_to_logical if placements else None
    return Held(recording.served.model, load, placement)


def _with_load(held: Held, source: Path, ranks: int) -> Recording:
    if held.load is None:
        raise _without_load(source)
    try:
        return as_recording(held, ranks)
    except ValueError as error:
        raise RecordingError(f"{source}: {error}; say how many with --ranks") from error


def _without_load(source: Path) -> RecordingError:
    return RecordingError(f"{source}: there is no load in it, and a recording needs one")
