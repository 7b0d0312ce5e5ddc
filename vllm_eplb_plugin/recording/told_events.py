# SPDX-License-Identifier: Apache-2.0
"""What the events of a server that recorded nothing hold of its loads and placements."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vllm_eplb_plugin.observe.progress import Outcome
from vllm_eplb_plugin.recording.recording import (
    Ended,
    InForce,
    Recording,
    RecordingError,
    Served,
    Shape,
    Window,
)

_SCHEMA = 2


def is_of_events(path: Path) -> bool:
    """Say whether `read_events` is to read it."""
    return path.is_dir() and any(path.glob("rank*.jsonl"))


def read_events(folder: Path) -> list[Recording]:
    """Read the ``rank<N>.jsonl`` of a folder (docs/events.md).

    They hold the load of a plan only if experts moved by it, in one slice, and say neither the
    interval nor the number of nodes.

    Returns:
        One for each model of each pipeline stage that moved experts.

    Raises:
        RecordingError: There is none, or elastic EP changed the number of ranks.
    """
    found = []
    for file in sorted(folder.glob("rank*.jsonl")):
        events: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for event in _events(file):
            # What ranks know of a model, EP rank 0 of each stage says.
            if event.get("rank") == 0 and "model_index" in event:
                events[event["model_index"]].append(event)
        for of_model in events.values():
            try:
                found += _recording(of_model)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise RecordingError(f"{file}: {error}") from error
    if not found:
        raise RecordingError(f"{folder}: no rank<N>.jsonl in it tells of experts that moved")
    return found


def _events(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # its server was ended while it wrote
                return
            raise RecordingError(f"{file}:{number}: it is no JSON: {error}") from error
        if event.get("schema") != _SCHEMA:
            schema = event.get("schema")
            raise RecordingError(f"{file}:{number}: its schema is {schema}, not {_SCHEMA}")
        yield event


def _recording(events: list[dict[str, Any]]) -> list[Recording]:
    """Make that of one model, if experts of it moved."""
    placed = [event for event in events if event["event"] == "placement"]
    started = {
        event["rearrangement"]: event
        for event in events
        if event["event"] == "rearrangement_started"
    }
    windows: dict[int, Window] = {}
    placements: dict[int, InForce] = {}
    for event in placed:
        start = started.get(event["rearrangement"], event) if event["mode"] else event
        step, rows = start["step"], event["physical_to_logical_map"]
        placements[step] = InForce(step, event["time"], np.array(rows, np.int64))
        if event["logical_load"] is not None and step > 0:
            load = np.array([event["logical_load"]], np.int64)
            windows[step] = Window(step, start["time"], load)
    if not windows:
        return []
    first = next(iter(windows.values())).load
    slots = len(placed[0]["physical_to_logical_map"][0])
    shape = Shape(first.shape[0], first.shape[1], slots, placed[0]["num_ranks"])
    served = Served(
        placed[0]["model"], placed[0]["model_index"], shape, _expert_bytes(events, shape.layers),
        "", None, None,
    )  # fmt: skip
    outcomes = tuple(
        Ended(started[event["rearrangement"]]["step"], event["time"], outcome)
        for event in events
        for outcome in get_args(Outcome)
        if event["event"] == f"rearrangement_{outcome}" and event["rearrangement"] in started
    )
    return [Recording(served, tuple(windows.values()), tuple(placements.values()), outcomes)]


def _expert_bytes(events: list[dict[str, Any]], layers: int) -> tuple[int, ...]:
    """The mean over what was moved; 0: the events do not say."""
    planned = [event for event in events if event["event"] == "rearrangement_planned"]
    experts = sum(sum(event["experts_received"]) for event in planned)
    sent = sum(sum(event["bytes_received"]) for event in planned)
    return (round(sent / experts) if experts else 0,) * layers
