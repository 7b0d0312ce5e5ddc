# SPDX-License-Identifier: Apache-2.0
"""What a recording holds: loads and placements of one served model, in the order of time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


class RecordingError(ValueError):
    """A recording cannot be read; the message has its file, what of it is wrong, and the rule."""


@dataclass(frozen=True)
class Shape:
    """The shape of a model's experts, and of the ranks that hold them."""

    layers: int
    """MoE layers."""
    experts: int
    """Logical experts of each."""
    slots: int
    """Physical experts of each, over all ranks."""
    ranks: int
    nodes: int = 1
    groups: int = 1
    """Expert groups that the router chooses from."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}, below 1")
        if self.slots < self.experts:
            raise ValueError(f"{self.slots} slots for {self.experts} experts")
        for name, divisor in (("slots", self.ranks), ("ranks", self.nodes)):
            if getattr(self, name) % divisor:
                raise ValueError(f"{getattr(self, name)} {name} cannot be shared by {divisor}")
        if self.experts % self.groups:
            raise ValueError(f"{self.experts} experts cannot be shared by {self.groups} groups")


@dataclass(frozen=True)
class Served:
    """What was served, and how."""

    model: str
    """The name that vLLM gives it."""
    model_index: int
    """0: the model that is served; 1 and above: drafters."""
    shape: Shape
    expert_bytes: tuple[int, ...]
    """For each layer, the weights of one expert."""
    release: str
    """Of vLLM; empty: unknown, as in files of others."""
    interval_steps: int | None
    """Engine steps between two rearrangements; None: unknown."""
    window_steps: int | None
    """Engine steps of which a window holds the load; None: unknown."""
    policy: str = ""
    """What planned: the setting `planning` as JSON; empty: vLLM's policy, or unknown."""

    def __post_init__(self) -> None:
        if len(self.expert_bytes) != self.shape.layers:
            raise ValueError(
                f"the bytes of an expert of {len(self.expert_bytes)} layers, of {self.shape.layers}"
            )


@dataclass(frozen=True)
class Window:
    """A load window is what a rearrangement planned from."""

    step: int
    """The engine step in which it was taken, counted from 1."""
    time: float
    """Then, in Unix seconds; 0: unknown."""
    slices: NDArray[np.int64]
    """``[slices, layers, logical]``: tokens over all ranks, slice by slice, the newest last."""

    @property
    def load(self) -> NDArray[np.int64]:
        """``[layers, logical]``: what is planned from."""
        total: NDArray[np.int64] = self.slices.sum(axis=0)
        return total


@dataclass(frozen=True)
class InForce:
    """A placement, and since when it is in force."""

    step: int
    """The engine step in which the rearrangement to it began; 0: it was the first."""
    time: float
    physical_to_logical: NDArray[np.int64]
    """``[layers, slots]``."""


@dataclass(frozen=True)
class Ended:
    """How a rearrangement ended."""

    step: int
    """The engine step in which it began."""
    time: float
    """When it ended, in Unix seconds."""
    outcome: str
    """See `observe.progress.Outcome`."""


@dataclass(frozen=True)
class Recording:
    """A recording is what one model's loads and placements were while it was served.

    Windows and placements are in the order of engine steps. A window of step n was counted under
    the last placement of a step below n, and under earlier ones if it is longer than that.
    """

    served: Served
    windows: Sequence[Window]
    placements: Sequence[InForce] = field(default_factory=tuple)
    """Empty: unknown, as in files of others."""
    outcomes: Sequence[Ended] = field(default_factory=tuple)
    """Of its rearrangements; empty: unknown."""
    warnings: Sequence[str] = field(default_factory=tuple)
    """What of it is lost or could not be read."""

    def __post_init__(self) -> None:
        shape = self.served.shape
        for window in self.windows:
            if window.slices.shape[1:] != (shape.layers, shape.experts):
                raise ValueError(f"the load of step {window.step} is {window.slices.shape}")
            if (window.slices < 0).any():
                raise ValueError(f"the load of step {window.step} is below 0")
        for placement in self.placements:
            if placement.physical_to_logical.shape != (shape.layers, shape.slots):
                raise ValueError(
                    f"the placement of step {placement.step} is "
                    f"{placement.physical_to_logical.shape}"
                )
        for steps in (
            [one.step for one in self.windows],
            [one.step for one in self.placements],
        ):
            if any(later <= earlier for earlier, later in pairwise(steps)):
                raise ValueError("steps do not go up")
