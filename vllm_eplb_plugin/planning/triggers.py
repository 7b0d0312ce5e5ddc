# SPDX-License-Identifier: Apache-2.0
"""Whether to plan now: decided on numbers that are the same on every rank, so alike on all.

Two things are looked for. What is served is not balanced any more, and was after the last plan: an
incremental plan then restores it. And the load is another one, as when another domain is served: a
plan from the former load is worth little, so it is made anew at once, from what came since.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.costs import rank_loads
from vllm_eplb_plugin.planning.problem import Floats, Integers

Reason = Literal["balancedness", "changed_load"]


@dataclass(frozen=True)
class Rule:
    """A rule says when to plan; None: not for that reason."""

    below: float | None = None
    """Balancedness that is too low, as vLLM logs it: mean over max rank load, each summed over
    the layers."""
    changed: float | None = None
    """Part of the load that is on other experts than before, which makes it another load."""
    margin: float = 0.01
    """Balancedness that has to be lost since the last plan, or planning again would not help."""


@dataclass
class Watch:
    """A watch is what is remembered of one model between two looks."""

    rule: Rule
    planned_from: Floats | None = None
    """``[layers, logical]``: the load of the last plan; None: there was none."""
    reached: float | None = None
    """Balancedness at the first look after the last plan; infinite: that was from a recorded load,
    and another one may reach more."""
    served: float | None = None
    """Balancedness at the last look."""

    @property
    def is_balanced(self) -> bool:
        """Whether nothing was too low at the last look."""
        below = self.rule.below
        return below is not None and self.served is not None and self.served >= below

    def planned(self, load: Floats) -> None:
        """Take note of a plan, and of the load ``[layers, logical]`` that it was made from.

        One from no load, after an idle time, changes nothing of what is known.
        """
        if load.any():
            self.planned_from, self.reached = load, None

    def began(self, load: Floats) -> None:
        """Take note of a recorded load ``[layers, logical]`` that experts were first placed by.

        Of what is served nobody knows yet how balanced a plan makes it.
        """
        self.planned_from, self.reached = load, math.inf

    def look(self, load: Floats, placement: Integers, num_ranks: int) -> Reason | None:
        """Look at what was served since the last look.

        Args:
            load: ``[layers, logical]``, of all ranks.
            placement: ``[layers, slots]``, in force.
            num_ranks: EP ranks.

        Returns:
            Why to plan; None: do not.
        """
        self.served = served = balancedness(load, placement, num_ranks)
        if served is None:
            return None
        if self.planned_from is not None:
            if self.reached is None:
                self.reached = served
            if self._is_another(load, self.planned_from):
                return "changed_load"
        if self.rule.below is None or self.is_balanced:
            return None
        has_fallen = self.reached is None or served <= self.reached - self.rule.margin
        return "balancedness" if has_fallen else None

    def _is_another(self, load: Floats, before: Floats) -> bool:
        return self.rule.changed is not None and changed_share(load, before) > self.rule.changed


def balancedness(load: Floats, placement: Integers, num_ranks: int) -> float | None:
    """Divide mean by max rank load, each summed over the layers; None: there is no load."""
    highest = float(rank_loads(load, placement, num_ranks).max(axis=1).sum())
    return float(load.sum()) / num_ranks / highest if highest > 0 else None


def changed_share(load: Floats, before: Floats) -> float:
    """Say which part of a load is on other experts than before, beyond what is chance.

    It is the total variation distance of the two distributions over experts, averaged over the
    layers that have both. What two samples of one distribution differ by, from their tokens, is
    taken off as independent errors are.

    Args:
        load: ``[layers, logical]`` tokens.
        before: ``[layers, logical]`` tokens, of any number.
    """
    layers, distance, chance = _distance(load, before)
    if layers == 0:
        return 0.0
    return float(np.sqrt(max((distance / layers) ** 2 - (chance / layers) ** 2, 0.0)))


# On the thread that runs the model: numpy takes ten times as long.
@compiled("Tuple((i8, f8, f8))(f8[:,::1], f8[:,::1])", nogil=True)
def _distance(load, before):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Layers that have both loads; their distance, and what chance makes of it, summed up."""
    layers, distance, chance = 0, 0.0, 0.0
    for layer in range(load.shape[0]):
        tokens, tokens_before = np.sum(load[layer]), np.sum(before[layer])
        if tokens == 0 or tokens_before == 0:
            continue
        layers += 1
        for expert in range(load.shape[1]):
            one, other = load[layer, expert], before[layer, expert]
            distance += abs(one / tokens - other / tokens_before) / 2
            mixed = (one + other) / (tokens + tokens_before)
            variance = mixed * (1 - mixed) * (1 / tokens + 1 / tokens_before)
            chance += np.sqrt(variance / (2 * np.pi))
    return layers, distance, chance
