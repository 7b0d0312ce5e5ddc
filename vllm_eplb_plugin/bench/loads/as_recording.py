# SPDX-License-Identifier: Apache-2.0
"""Loads that were drawn, as a recording of a server that never ran."""

from pathlib import Path

import numpy as np

from vllm_eplb_plugin.bench.comparison.loads import recorded, shapes_of
from vllm_eplb_plugin.bench.loads.recorded import domains_in_turn
from vllm_eplb_plugin.bench.loads.synthetic import DRIFTS, Drift, drifting_parts
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.planning.problem import Floats
from vllm_eplb_plugin.recording import recording

DOMAINS = "domains"
"""The load of recorded domains, one after another."""


def drawn_recording(
    shape: Shape, load: str, windows: int, tokens: int, expert_bytes: int
) -> recording.Recording:
    """Draw so many windows of a load that drifts.

    Raises:
        BenchError: There is no such load.
    """
    if load not in DRIFTS:
        raise BenchError(f"there is no load {load!r}: there are {', '.join((*DRIFTS, DOMAINS))}")
    drift = Drift(DRIFTS[load], tokens=tokens)
    loads = drifting_parts(drift, shape.layers, shape.logical, windows, 1, 0)
    return as_recording(shape, loads, expert_bytes)


def recorded_domains(
    folder: Path | None, shape: Shape | None, windows: int, tokens: int, expert_bytes: int
) -> list[recording.Recording]:
    """Draw so many windows of each recorded domain, one domain after another.

    Raises:
        BenchError: No folder, no counts in it, or counts of other experts than the shape has.
    """
    return [
        as_recording(fitting, domains_in_turn(counts, windows, 0, tokens, 0), expert_bytes)
        for counts in recorded(folder)
        for fitting in shapes_of(counts, None if shape is None else [shape])
    ]


def as_recording(shape: Shape, loads: Floats, expert_bytes: int) -> recording.Recording:
    """Take ``[windows, layers, logical]`` for windows of one step each, at no known time."""
    served = recording.Served(
        shape.name,
        0,
        recording.Shape(
            shape.layers, shape.logical, shape.slots, shape.ranks, shape.nodes, shape.groups
        ),
        (expert_bytes,) * shape.layers,
        release="",
        interval_steps=None,
        window_steps=None,
    )
    windows = [
        recording.Window(step, 0.0, load.astype(np.int64)[None])
        for step, load in enumerate(loads, 1)
    ]
    return recording.Recording(served, windows)
