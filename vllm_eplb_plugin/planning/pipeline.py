# SPDX-License-Identifier: Apache-2.0
"""A policy, then steps: what the server and whoever simulates it call, and nothing else."""

from vllm_eplb_plugin.planning.problem import Integers, Policy, Problem, Step


def pipeline(policy: Policy, *steps: Step) -> Policy:
    """Make one policy of a policy and the steps that its placement goes through, in order."""

    def plan(problem: Problem) -> Integers:
        placement = policy(problem)
        for step in steps:
            placement = step(problem, placement)
        return placement

    return plan
