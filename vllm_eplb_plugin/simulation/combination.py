# SPDX-License-Identifier: Apache-2.0
"""What is played: a way to plan, on so many ranks with so many experts, so often."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from vllm_eplb_plugin.planning.posing import Cluster
from vllm_eplb_plugin.planning.problem import Integers
from vllm_eplb_plugin.recording.recording import Recording, Shape
from vllm_eplb_plugin.simulation.candidate import NOTHING, Candidate


@dataclass(frozen=True)
class Combination:
    """A combination is one of the settings that are compared."""

    candidate: Candidate
    redundant: int
    """Redundant experts of a layer, over all ranks."""
    ranks: int
    nodes: int
    interval: int = 1
    """Every so many windows is planned."""
    window: int = 1
    """So many windows, the newest ones, are planned from."""

    def __post_init__(self) -> None:
        for name, value, lowest in (
            ("redundant", self.redundant, 0),
            ("interval", self.interval, 1),
            ("window", self.window, 1),
        ):
            if value < lowest:
                raise ValueError(f"{name} is {value}, below {lowest}")

    def shape_of(self, recording: Recording) -> Shape:
        """The shape in which a recorded model is simulated.

        Raises:
            ValueError: Its experts cannot be shared by these ranks, or ranks by nodes.
        """
        recorded = recording.served.shape
        slots = recorded.experts + self.redundant
        return Shape(
            recorded.layers, recorded.experts, slots, self.ranks, self.nodes, recorded.groups
        )


@dataclass(frozen=True)
class Grid:
    """A grid holds what is combined; empty: as it was recorded."""

    candidates: Sequence[Candidate]
    redundant: Sequence[int] = ()
    ranks: Sequence[int] = ()
    nodes: Sequence[int] = ()
    intervals: Sequence[int] = (1,)
    windows: Sequence[int] = (1,)

    def combinations(self, recording: Recording) -> tuple[list[Combination], list[str]]:
        """Combine everything.

        Returns:
            What can be played of a recording, and for the rest why it cannot.
        """
        shape = recording.served.shape
        recorded = (shape.slots - shape.experts,), (shape.ranks,), (shape.nodes,)
        asked = (self.redundant, self.ranks, self.nodes)
        clusters = product(*(one or other for one, other in zip(asked, recorded, strict=True)))
        found: list[Combination] = []
        impossible: list[str] = []
        for redundant, ranks, nodes in clusters:
            try:
                Combination(Candidate(NOTHING), redundant, ranks, nodes).shape_of(recording)
            except ValueError as error:
                impossible.append(f"{redundant} redundant experts on {ranks} ranks: {error}")
                continue
            for candidate, interval, window in self._ways():
                found.append(Combination(candidate, redundant, ranks, nodes, interval, window))
        return found, impossible

    def _ways(self) -> Iterable[tuple[Candidate, int, int]]:
        """What never moves does not ask how often it is planned."""
        for candidate in self.candidates:
            if candidate.name == NOTHING:
                yield candidate, 1, 1
            else:
                for interval, window in product(self.intervals, self.windows):
                    yield candidate, interval, window


def cluster_of(recording: Recording, shape: Shape) -> Cluster:
    """Where the experts of a recorded model are placed, in some shape."""
    return Cluster(shape.ranks, shape.nodes, shape.groups, recording.served.expert_bytes)


def first_placement(recording: Recording, shape: Shape) -> Integers:
    """``[layers, slots]``: the recording's first, or in another shape vLLM's own.

    That is ``EplbState.build_initial_global_physical_to_logical_map`` of all releases.
    """
    recorded = recording.served.shape
    if recording.placements and (shape.slots, shape.ranks) == (recorded.slots, recorded.ranks):
        return recording.placements[0].physical_to_logical.astype(np.int64)
    slots = np.arange(shape.slots, dtype=np.int64) % shape.experts
    return np.tile(slots, (shape.layers, 1))
