# SPDX-License-Identifier: Apache-2.0
"""The problem that a window and the setting `planning` pose, in the server and in the simulator."""

from collections.abc import Sequence
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
    """A cluster is where the experts of a model are placed."""

    ranks: int
    nodes: int
    groups: int
    """Expert groups of the model."""
    expert_bytes: Sequence[int]
    """For each layer, the weights of one expert."""


class Posing:
    """A posing makes the problems of one model, window after window."""

    def __init__(self, options: PosingOptions) -> None:
        """Start without a memory of earlier windows."""
        self._limits = Limits(**options.limits.model_dump())
        self._respects_groups = options.expert_groups
        chosen = options.smoothing
        self._smoothing = None if chosen is None else Smoothing(chosen.weight, chosen.max_tokens)

    def forget(self) -> None:
        """Forget earlier windows: the load is another one."""
        if self._smoothing is not None:
            self._smoothing.forget()

    def pose_window(self, history: Floats, old: Integers, cluster: Cluster) -> Problem:
        """Take one more window, whose load is the sum of its parts; see `pose`."""
        return self.pose(history.sum(axis=0), old, cluster, history)

    def pose(
        self, load: Floats, old: Integers, cluster: Cluster, history: Floats | None
    ) -> Problem:
        """Take one more window, which is smoothed by those before.

        Args:
            load: ``[layers, logical]`` tokens of the whole window.
            old: ``[layers, slots]``, the placement in force.
            cluster: Of now: elastic EP changes it between two windows.
            history: ``[time, layers, logical]`` tokens, part by part, the newest last; None: the
                parts are not known.
        """
        if self._smoothing is not None:
            load = self._smoothing.smooth(load)
        return Problem(
            load,
            np.ascontiguousarray(old),
            cluster.ranks,
            cluster.nodes,
            cluster.groups if self._respects_groups else 1,
            np.array(cluster.expert_bytes, np.int64),
            history,
            self._limits,
        )
