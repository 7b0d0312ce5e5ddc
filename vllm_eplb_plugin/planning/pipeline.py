# SPDX-License-Identifier: Apache-2.0
"""A policy, then steps: what the server and whoever simulates it call, and nothing else."""

from dataclasses import dataclass, replace

import numpy as np

from vllm_eplb_plugin.planning.answers import require_placement
from vllm_eplb_plugin.planning.problem import (
    Integers,
    Policy,
    Problem,
    Step,
    StepBesideBalance,
)
from vllm_eplb_plugin.planning.steps.limits import fits, within_limits
from vllm_eplb_plugin.planning.steps.small_gains import drop_small_gains


@dataclass(frozen=True)
class Proposal:
    """A proposal is what a pipeline answers."""

    placement: Integers
    """``[layers, slots]``, within the limits of the problem."""
    wanted: Integers
    """``[layers, slots]``: the placement without limits on what is moved."""


@dataclass(frozen=True)
class Pipeline:
    """A policy and the steps that its placement goes through, in order; limits come last.

    A step for something else than balance is taken once more for the layers that gain too little
    balance to be changed for that.
    """

    policy: Policy
    steps: tuple[Step, ...] = ()

    def __call__(self, problem: Problem) -> Proposal:
        """Plan; where the limits forbid what is wanted, again within them.

        Raises:
            InvalidPlacementError: A policy or a step answered what is no placement.
        """
        wanted = self._plan(replace(problem, limits=problem.limits.without_budgets))
        wanted = self._without_small_gains(problem, wanted)
        if fits(problem, wanted):
            return Proposal(wanted, wanted)
        placement = self._without_small_gains(problem, self._plan(problem))
        urgent = np.zeros(problem.num_layers, np.bool_)
        for step in self._beside_balance:
            urgent |= step.gains_beside_balance(problem, placement)
        return Proposal(within_limits(problem, placement, urgent), wanted)

    @property
    def _beside_balance(self) -> list[StepBesideBalance]:
        return [step for step in self.steps if isinstance(step, StepBesideBalance)]

    def _without_small_gains(self, problem: Problem, placement: Integers) -> Integers:
        kept = drop_small_gains(problem, placement)
        for step in self._beside_balance:
            stays = (kept == problem.old).all(axis=1)
            if stays.any():
                again = require_placement(problem, step(problem, kept), "the step", step)
                kept = np.where(stays[:, None], again, kept)
        return kept

    def _plan(self, problem: Problem) -> Integers:
        # Foreign code may write where it should only read.
        problem = replace(problem, load=problem.load.copy(), old=problem.old.copy())
        placement = require_placement(problem, self.policy(problem), "the policy", self.policy)
        for step in self.steps:
            placement = require_placement(problem, step(problem, placement), "the step", step)
        return placement
