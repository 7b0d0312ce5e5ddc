# SPDX-License-Identifier: Apache-2.0
"""One hash over the plans of 1,000 problems; as a program it prints that and for what it compiled.

A plan that differs between two ranks' processors is one that the ranks cannot carry out.
"""

import hashlib

from tests.builders.drawn_problems import Draws, drawn_problem
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.policies.incremental import Incremental

PROBLEMS = 1000


def hash_of_plans() -> str:
    """Plan all of them, each with parameters of its own."""
    digest = hashlib.sha256()
    for seed in range(PROBLEMS):
        plan = Pipeline(_policy(Draws(PROBLEMS + seed)))(drawn_problem(seed)).placement
        digest.update(repr(plan.shape).encode())
        digest.update(plan.astype("<i8").tobytes())
    return digest.hexdigest()


def _policy(draws: Draws) -> Incremental:
    target = draws.one_of(0.9, 0.98, 0.99, 1.0)
    kappa = draws.one_of(0.0, 1.0, 1.2, 2.0, 4.0)
    return Incremental(target, kappa, draws.one_of(0.0, 0.02, 0.1))


def compiled_for() -> str:
    """The processor for which numba compiles in this process."""
    from numba.core.registry import cpu_target

    return str(cpu_target.target_context.codegen().magic_tuple()[1:])


if __name__ == "__main__":
    print(hash_of_plans(), compiled_for())
