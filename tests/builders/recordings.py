# SPDX-License-Identifier: Apache-2.0
"""Recordings of small models, made up."""

from pathlib import Path

import numpy as np

from vllm_eplb_plugin.recording.recording import Ended, InForce, Served, Shape, Window
from vllm_eplb_plugin.recording.rotation import Rotation
from vllm_eplb_plugin.recording.writer import RecordingWriter

SHAPE = Shape(layers=3, experts=8, slots=12, ranks=2)


def served(shape: Shape = SHAPE, model_index: int = 0) -> Served:
    """What is served."""
    return Served("tiny", model_index, shape, (128,) * shape.layers, "0.26.0", 100, 50)


def window(step: int, shape: Shape = SHAPE, slices: int = 2, highest: int = 300) -> Window:
    """Take a window; its load follows from its step."""
    random = np.random.default_rng(step)
    return Window(
        step,
        1000.0 + step,
        random.integers(0, highest, (slices, shape.layers, shape.experts)),
    )


def in_force(step: int, shape: Shape = SHAPE) -> InForce:
    """Place experts; where they are follows from the step."""
    random = np.random.default_rng(step)
    every = np.arange(shape.slots) % shape.experts
    rows = [random.permutation(every) for _ in range(shape.layers)]
    return InForce(step, 1000.5 + step, np.array(rows))


def writer_in(
    folder: Path, shape: Shape = SHAPE, model_index: int = 0, max_bytes: int = 10**9
) -> RecordingWriter:
    """Write into the first start of a server."""
    rotation = Rotation(folder, max_bytes)
    return RecordingWriter(folder / "start", served(shape, model_index), rotation)


def write(writer: RecordingWriter, *steps: int) -> None:
    """Write a file in which a rearrangement began and finished in each step."""
    for step in steps:
        writer.taken(window(step))
        writer.placed(in_force(step))
        writer.ended(Ended(step, 1000.5 + step, "finished"))
    for _ in writer.write():
        pass
