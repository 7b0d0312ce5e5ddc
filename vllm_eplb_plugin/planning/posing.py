# SPDX-License-Identifier: Apache-2.0
"""The problem that a window and the setting `planning` pose: as the server states it."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vllm_eplb_plugin.planning.problem import Floats, Integers, Limits, Problem
from vllm_eplb_plugin.planning.smoothing import Smoothing


class LimitsChosen(Protocol):
    """The limits, as the setting has them."""

    def model_dump(self) -> dict[str, Any]: ...


class SmoothingChosen(Protocol):
    """The smoothing, as the setting has it."""

    @property
    def weight(self) -> float: ...
    @property
    def max_tokens(self) -> int: ...


class PosingOptions(Protocol):
    """What of the setting ``planning`` a problem depends on."""

    @property
    def limits(self) -> LimitsChosen: ...
    @property
    def expert_groups(self) -> bool: ...
    @property
    def smoothing(self) -> SmoothingChosen | None: ...


@dataclass(frozen=True)
class Cluster:
    """A cluster is where experts are placed."""

    ranks: int
    nodes: int
    groups: int
    """Expert groups of the model."""
    expert_bytes: tuple[int, ...]
    """For each layer, the weights of one expert."""


class Posing:
    """A posing makes the problems of one model, window after window."""

    def __init__(self, options: PosingOptions, cluster: Cluster) -> None:
        """Start without a memory of earlier windows."""
        self._cluster = cluster
        self._limits = Limits(**options.limits.model_dump())
        self._groups = cluster.groups if options.expert_groups else 1
        chosen = options.smoothing
        self._smoothing = None if chosen is None else Smoothing(chosen.weight, chosen.max_tokens)

    def forget(self) -> None:
        """Forget earlier windows: the load is another one."""
        if self._smoothing is not None:
            self._smoothing.forget()

    def pose(self, history: Floats, old: Integers) -> Problem:
        """Take one more window.

        Args:
            history: ``[time, layers, logical]`` tokens, part by part, the newest last.
            old: ``[layers, slots]``, the placement in force.
        """
        load = history.sum(axis=0)
        if self._smoothing is not None:
            load = self._smoothing.smooth(load)
        cluster = self._cluster
        return Problem(
            load,
            np.ascontiguousarray(old),
            cluster.ranks,
            cluster.nodes,
            self._groups,
            np.array(cluster.expert_bytes, np.int64),
            history,
            self._limits,
        )
