# SPDX-License-Identifier: Apache-2.0
"""Reads placements as JSON: the event `placement`, or of it what a placement needs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.recording.placement_rows import placement_of
from vllm_eplb_plugin.recording.recording import InForce, Recording, RecordingError, Served, Shape

UNKNOWN_RANKS = 1
"""Nobody moves experts with one rank only."""


def is_of_placements(file: Path) -> bool:
    """Say whether a file begins with a JSON object that has a placement as events have it."""
    if file.suffix not in (".json", ".jsonl"):
        return False
    try:
        first = next(_objects_in(file.read_text()), None)
    except (OSError, ValueError):
        return True  # `read_placements` says what is wrong
    return first is None or ("model_maps" not in first and "physical_to_logical_map" in first)


def read_placements(file: Path) -> list[Recording]:
    """Read a file of JSON objects with ``model`` and ``physical_to_logical_map``.

    There may be several, for drafters, too, or of one model: the last one is in force. An object
    may have ``model_index`` and ``num_ranks``; other keys, as an event has them, are left alone.

    Returns:
        For each object a recording without loads.

    Raises:
        RecordingError: The file cannot be read, is no such file, or a placement is invalid.
    """
    try:
        text = file.read_text()
        found = [_recording_of(said) for said in _objects_in(text)]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecordingError(f"{file}: {reason}") from error
    if not found:
        raise RecordingError(f"{file}: no JSON object is in it")
    return found


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        said, end = decoder.raw_decode(rest)
        if not isinstance(said, dict):
            raise RecordingError(f"{json.dumps(said)[:40]} is no JSON object")
        yield said
        rest = rest[end:].lstrip()


def _recording_of(said: dict[str, Any]) -> Recording:
    for key in ("model", "physical_to_logical_map"):
        if key not in said:
            raise RecordingError(f"an object has no {key!r}")
    for key, kind in (("model", str), ("model_index", int), ("num_ranks", int)):
        if key in said and not isinstance(said[key], kind):
            raise RecordingError(f"{key} is {said[key]!r}, no {kind.__name__}")
    rows = placement_of(said["physical_to_logical_map"])
    experts, ranks = int(rows.max()) + 1, said.get("num_ranks", UNKNOWN_RANKS)
    shape = Shape(len(rows), experts, rows.shape[1], ranks)
    served = Served(
        said["model"], said.get("model_index", 0), shape, (0,) * len(rows), "", None, None
    )
    return Recording(served, (), (InForce(0, 0.0, rows),))
