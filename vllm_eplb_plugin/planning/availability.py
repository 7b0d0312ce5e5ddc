# SPDX-License-Identifier: Apache-2.0
"""Whether a policy and steps can be had here, found out before anything needs them."""

from typing import TYPE_CHECKING

from vllm_eplb_plugin.placement.fast_way import import_problem

if TYPE_CHECKING:
    from vllm_eplb_plugin.planning.pipeline import Pipeline
    from vllm_eplb_plugin.planning.registry import Chosen


def planning_problem(chosen: "Chosen | None", tries: bool = False) -> str | None:
    """Say why these cannot plan; None: they can, or nothing is chosen.

    Args:
        chosen: As the setting ``planning`` has it.
        tries: Whether they plan something small, which shows what a policy of any package answers.
    """
    if chosen is None:
        return None
    if problem := import_problem("vllm_eplb_plugin.planning.registry"):
        return f"the setting planning needs what this environment lacks: {problem}"
    from vllm_eplb_plugin.planning.registry import UnknownPolicyError, make_pipeline

    try:
        pipeline = make_pipeline(chosen)
    except UnknownPolicyError as error:
        return f"the setting planning: {error}"
    return _try(pipeline) if tries else None


def _try(pipeline: "Pipeline") -> str | None:
    import numpy as np

    from vllm_eplb_plugin.planning.problem import Problem

    load = np.arange(1, 17, dtype=np.float64).reshape(2, 8)
    problem = Problem(load, np.tile(np.arange(12) % 8, (2, 1)), 4, history=load[np.newaxis])
    try:
        pipeline(problem)
    except Exception as error:  # foreign code, which may fail in any way
        return (
            "the setting planning cannot plan 2 layers of 8 + 4 experts on 4 ranks, and what fails "
            f"so while serving moves nothing: {type(error).__name__}: {error}"
        )
    return None
