# SPDX-License-Identifier: Apache-2.0
"""One hash over the plans of 1,000 problems; as a program it prints that and for what it compiled.

A plan that differs between two ranks' processors is one that the ranks cannot carry out.
"""

import hashlib

import numpy as np

from tests.builders.drawn_problems import Draws, drawn_problem
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.policies.replicas_only import ReplicasOnly
from vllm_eplb_plugin.planning.problem import Integers, Problem, Step
from vllm_eplb_plugin.planning.steps.keep_in_place import KeepInPlace
from vllm_eplb_plugin.planning.steps.two_ranks import TwoRanks

PROBLEMS = 1000


def hash_of_plans() -> str:
    """Plan all of them, each with parameters of its own."""
    digest = hashlib.sha256()
    for seed in range(PROBLEMS):
        plan = _pipeline(Draws(PROBLEMS + seed))(drawn_problem(seed)).placement
        digest.update(repr(plan.shape).encode())
        digest.update(plan.astype("<i8").tobytes())
    return digest.hexdigest()


def _pipeline(draws: Draws) -> Pipeline:
    target = draws.one_of(0.9, 0.98, 0.99, 1.0)
    kappa = draws.one_of(0.0, 1.0, 1.2, 2.0, 4.0)
    incremental = Incremental(target, kappa, draws.one_of(0.0, 0.02, 0.1))
    kind = draws.below(4)
    policy = (incremental, incremental, ReplicasOnly(target), reverse)[kind]
    steps: tuple[Step, ...] = (KeepInPlace(draws.one_of(0.0, 0.01, 0.1)),) if kind % 2 else ()
    if draws.below(2):
        steps = (*steps, TwoRanks(draws.one_of(0.0, 0.02, 1.0)))
    return Pipeline(policy, steps)


def reverse(problem: Problem) -> Integers:
    """A policy that looks at nothing: the last experts first."""
    order = np.arange(problem.num_slots)[::-1] % problem.num_experts
    return np.tile(order, (problem.num_layers, 1))


def compiled_for() -> str:
    """The processor for which numba compiles in this process."""
    from numba.core.registry import cpu_target

    return str(cpu_target.target_context.codegen().magic_tuple()[1:])


if __name__ == "__main__":
    print(hash_of_plans(), compiled_for())
