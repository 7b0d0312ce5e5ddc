# SPDX-License-Identifier: Apache-2.0
"""A policy, then steps: what the server and whoever simulates it call, and nothing else."""

from dataclasses import dataclass, replace

from vllm_eplb_plugin.planning.answers import require_placement
from vllm_eplb_plugin.planning.problem import Integers, Policy, Problem, Step
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
    """A policy and the steps that its placement goes through, in order; limits come last."""

    policy: Policy
    steps: tuple[Step, ...] = ()

    def __call__(self, problem: Problem) -> Proposal:
        """Plan; where the limits forbid what is wanted, again within them.

        Raises:
            InvalidPlacementError: A policy or a step answered what is no placement.
        """
        wanted = self._plan(replace(problem, limits=problem.limits.without_budgets))
        wanted = drop_small_gains(problem, wanted)
        if fits(problem, wanted):
            return Proposal(wanted, wanted)
        placement = drop_small_gains(problem, self._plan(problem))
        return Proposal(within_limits(problem, placement), wanted)

    def _plan(self, problem: Problem) -> Integers:
        # Foreign code may write where it should only read.
        problem = replace(problem, load=problem.load.copy(), old=problem.old.copy())
        placement = require_placement(problem, self.policy(problem), "the policy", self.policy)
        for step in self.steps:
            placement = require_placement(problem, step(problem, placement), "the step", step)
        return placement
