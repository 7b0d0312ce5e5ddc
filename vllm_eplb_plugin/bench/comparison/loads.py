# SPDX-License-Identifier: Apache-2.0
"""The loads that policies are compared on, by name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vllm_eplb_plugin.bench.loads.drawn import Run
from vllm_eplb_plugin.bench.loads.recorded import (
    Recording,
    another_domain,
    mixed_domains,
    own_domain,
    read_recordings,
)
from vllm_eplb_plugin.bench.loads.synthetic import DRIFTS, Drift, synthetic_run
from vllm_eplb_plugin.bench.options import LOADS_VARIABLE
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape

RECORDED: dict[str, Callable[[Recording, int, int, int], list[Run]]] = {
    "own": own_domain,
    "another": another_domain,
    "mix": mixed_domains,
}
"""What is planned from when one domain is served: that one, each other one, all of them."""


@dataclass(frozen=True)
class Loads:
    """What loads are made with."""

    sigma: float
    tokens: int
    plans: int
    """Of each run."""
    seeds: int
    folder: Path | None


@dataclass(frozen=True)
class Task:
    """A task is one load of one shape."""

    shape: Shape
    load: str
    runs: Callable[[int], list[Run]]
    """By seed."""


def tasks(shapes: list[Shape] | None, names: list[str], loads: Loads) -> Iterator[Task]:
    """Put each shape and each load together.

    Args:
        shapes: None: all of `bench.shapes.SHAPES` for synthetic loads; for recorded ones those of
            the recordings, with a quarter more slots than experts, on 8 ranks.
        names: Of `DRIFTS` and of `RECORDED`.
        loads: Everything else.

    Raises:
        BenchError: No such load, or no folder or no recording for it.
    """
    for name in names:
        if name not in DRIFTS and name not in RECORDED:
            raise BenchError(
                f"there is no load {name!r}: there are {', '.join((*DRIFTS, *RECORDED))}"
            )
    recordings = recorded(loads.folder) if any(name in RECORDED for name in names) else []
    for name in names:
        if name in DRIFTS:
            for shape in shapes or SHAPES:
                yield _synthetic(shape, name, loads)
            continue
        for recording in recordings:
            for shape in shapes_of(recording, shapes):
                yield _recorded(shape, name, recording, loads)


def recorded(folder: Path | None) -> list[Recording]:
    """Read the recordings of a folder that has to be named."""
    if folder is None:
        raise BenchError(f"recorded loads: name their folder, by --loads-from or {LOADS_VARIABLE}")
    return read_recordings(folder)


def shapes_of(recording: Recording, shapes: list[Shape] | None) -> list[Shape]:
    """The shapes that a recording can be served with, with its number of layers."""
    experts = recording.experts
    asked = shapes or [Shape("recorded", 1, experts, experts // 4, ranks=8)]
    fitting = [shape for shape in asked if shape.logical == experts]
    if not fitting:
        raise BenchError(f"no --shape has the {experts} experts of {recording.model}'s loads")
    return [replace(one, name=recording.model, layers=recording.layers) for one in fitting]


def _synthetic(shape: Shape, name: str, loads: Loads) -> Task:
    drift = Drift(DRIFTS[name], loads.sigma, loads.tokens)

    def runs(seed: int) -> list[Run]:
        return [synthetic_run(drift, shape.layers, shape.logical, loads.plans, seed)]

    return Task(shape, name, runs)


def _recorded(shape: Shape, name: str, recording: Recording, loads: Loads) -> Task:
    def runs(seed: int) -> list[Run]:
        return RECORDED[name](recording, loads.plans, loads.tokens, seed)

    return Task(shape, name, runs)
