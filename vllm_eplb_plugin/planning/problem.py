# SPDX-License-Identifier: Apache-2.0
"""What is planned from: loads, the placement in force, and what may be moved."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """The limits of one rearrangement; a placement that breaks them is not proposed."""

    max_bytes: int | None = None
    """Expert weights that all ranks together receive from others."""
    max_bytes_per_rank: int | None = None
    """The same for the rank that receives most."""
    max_layers: int | None = None
    """Layers that change."""
    min_gain: float = 0.0
    """Balancedness that a layer has to gain, or it stays as it is."""
    other_node_cost: float = 1.0
    """How many experts from the same node one from another node counts for."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_bytes_per_rank", "max_layers"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}, below 0")
        if not 0 <= self.min_gain < 1:
            raise ValueError(f"min_gain is {self.min_gain:g}, not from 0 to below 1")
        if not self.other_node_cost >= 1:
            raise ValueError(f"other_node_cost is {self.other_node_cost:g}, below 1")

    @property
    def are_budgets(self) -> bool:
        """Whether some gains may have to be left for others."""
        return any(
            limit is not None
            for limit in (self.max_bytes, self.max_bytes_per_rank, self.max_layers)
        )

    @property
    def without_budgets(self) -> "Limits":
        """The same, but for how much may be moved."""
        return replace(self, max_bytes=None, max_bytes_per_rank=None, max_layers=None)


@dataclass(frozen=True)
class Problem:
    """A problem is all that a policy may look at: the same on every rank."""

    load: Floats
    """``[layers, logical]``: tokens of each logical expert, over all ranks."""
    old: Integers
    """``[layers, slots]``: the placement in force, every slot filled."""
    num_ranks: int
    num_nodes: int = 1
    num_groups: int = 1
    """Expert groups that the router chooses from; 1 where they are to be ignored."""
    expert_bytes: Integers | None = None
    """``[layers]``: weights of one expert; None: 1 byte each, so that limits count experts."""
    history: Floats | None = None
    """``[time, layers, logical]``: the load window part by part, the newest last; `load` is their
    sum, unless it is smoothed. None: there is no more than `load`."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.load.ndim != 2 or self.old.ndim != 2 or len(self.load) != len(self.old):
            raise ValueError(
                f"loads of shape {list(self.load.shape)} and a placement of shape "
                f"{list(self.old.shape)} are not [layers, logical] and [layers, slots]"
            )
        if not np.isfinite(self.load).all() or (self.load < 0).any():
            raise ValueError("a load is negative or not finite")
        for name, number, divisor in (
            ("slots", self.num_slots, self.num_ranks),
            ("ranks", self.num_ranks, self.num_nodes),
            ("experts", self.num_experts, self.num_groups),
        ):
            if divisor < 1 or number % divisor:
                raise ValueError(f"{number} {name} cannot be divided by {divisor}")
        if self.old.size and (self.old.min() < 0 or self.old.max() >= self.num_experts):
            raise ValueError("the placement in force has a slot without an expert")

    @property
    def num_layers(self) -> int:
        return len(self.load)

    @property
    def num_experts(self) -> int:
        """Logical experts of a layer."""
        return int(self.load.shape[1])

    @property
    def num_slots(self) -> int:
        return int(self.old.shape[1])

    @property
    def respects_groups(self) -> bool:
        """Whether each expert group stays on one node, as in vLLM's default policy."""
        return self.num_nodes > 1 and self.num_groups % self.num_nodes == 0

    @cached_property
    def bytes_of(self) -> Integers:
        """``[layers]``: weights of one expert."""
        if self.expert_bytes is None:
            return np.ones(self.num_layers, np.int64)
        return self.expert_bytes


Policy: TypeAlias = Callable[[Problem], Integers]
"""From a problem to a placement ``[layers, slots]``, valid and the same on every rank."""

Step: TypeAlias = Callable[[Problem, Integers], Integers]
"""From a placement to a better or a cheaper one."""


@runtime_checkable
class StepBesideBalance(Protocol):
    """A step for something else than balance: limits that ask for that have to know."""

    def __call__(self, problem: Problem, placement: Integers, /) -> Integers: ...

    def gains_beside_balance(self, problem: Problem, placement: Integers, /) -> NDArray[np.bool_]:
        """``[layers]``: where a placement is better for it than the one in force."""
        ...
