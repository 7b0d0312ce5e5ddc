# SPDX-License-Identifier: Apache-2.0
"""Each MoE layer's placement before and after, as a heat map of ranks by logical experts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eval.activity.placements import Load, balancedness, count_replicas, replicas_by_rank
from eval.activity.timeline import Placements
from vllm_eplb_plugin.simulation.drawing import path

_GAPS_UP_TO = 64
"""Cells of more experts touch each other."""
_SHADES = 3
"""Replicas that are told apart by colour: 1, 2, and 3 or more."""


@dataclass(frozen=True)
class LayerFigure:
    """One layer's drawings; their coordinates are experts, ranks and per cent of the largest."""

    load: Markup
    """Load of each expert: columns as those of the maps."""
    before: Markup
    after: Markup
    rank_load_unmoved: Markup
    """Load of each rank: rows as those of the maps."""
    rank_load_served: Markup

    def size(self) -> int:
        """Bytes that it takes in the page, without ``before``, which layers share."""
        drawings = (self.load, self.after, self.rank_load_unmoved, self.rank_load_served)
        return sum(map(len, drawings))


@dataclass(frozen=True)
class Layer:
    """What there is to say of one layer."""

    index: int
    balancedness_unmoved: float
    balancedness_served: float
    slots_changed: int
    """Between the first placement and the last."""
    most_replicas: int
    """Of one expert, in the last placement."""
    hottest_expert: int
    hottest_load: float
    """Over the mean."""
    mean_position: float
    """Per cent of the longest rank bar at which the mean load is."""
    figure: LayerFigure


def layer_views(placements: Placements) -> list[Layer]:
    """Every MoE layer of one model."""
    return [_layer(placements, index) for index in range(placements.first.shape[0])]


def _layer(placements: Placements, index: int) -> Layer:
    load = placements.expert_load[index]
    unmoved, served = placements.rank_load_unmoved[index], placements.rank_load_served[index]
    first, last = placements.first[index], placements.last[index]
    ranks, experts = placements.ranks, load.size
    longest = max(float(unmoved.max()), float(served.max()), 1.0)
    return Layer(
        index=index,
        balancedness_unmoved=balancedness(unmoved),
        balancedness_served=balancedness(served),
        slots_changed=int((first != last).sum()),
        most_replicas=int(count_replicas(last[None], experts).max()),
        hottest_expert=int(load.argmax()),
        hottest_load=float(load.max() / load.mean()) if load.any() else 0.0,
        mean_position=100 * float(unmoved.mean()) / longest,
        figure=LayerFigure(
            load=_columns(load),
            before=heat_map(replicas_by_rank(first, experts, ranks)),
            after=heat_map(replicas_by_rank(last, experts, ranks)),
            rank_load_unmoved=_rows(unmoved / longest),
            rank_load_served=_rows(served / longest),
        ),
    )


def heat_map(replicas: NDArray[np.int64]) -> Markup:
    """Cells of ``[ranks, experts]`` that hold a replica, a path for each shade."""
    gap = 0.12 if replicas.shape[1] <= _GAPS_UP_TO else 0.0
    drawing = Markup("")
    for shade in range(1, _SHADES + 1):
        cells = replicas == shade if shade < _SHADES else replicas >= shade
        if cells.any():
            steps = "".join(_cells(cells, gap))
            drawing += path(steps, f"r{shade}")
    return drawing


def _cells(cells: NDArray[np.bool_], gap: float) -> Iterator[str]:
    for rank, row in enumerate(cells):
        for start, length in _stretches(row) if not gap else ((x, 1) for x in np.flatnonzero(row)):
            yield f"M{start + gap / 2:g} {rank + 0.5:g}h{length - gap:g}"


def _stretches(row: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Starts and lengths of what is true side by side."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False]))))
    for start, end in zip(edges[0::2], edges[1::2], strict=True):
        yield int(start), int(end - start)


def _columns(load: Load) -> Markup:
    heights = 100 - np.round(100 * load / max(float(load.max()), 1.0)).astype(int)
    steps = "".join(f"V{height}h1" for height in heights)
    return path(f"M0 100{steps}V100z", "column")


def _rows(lengths: Load) -> Markup:
    steps = (f"M0 {rank + 0.5:g}h{100 * length:.1f}" for rank, length in enumerate(lengths))
    return path("".join(steps), "row")
