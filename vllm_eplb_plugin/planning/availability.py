# SPDX-License-Identifier: Apache-2.0
"""Whether a policy and steps can be had here, found out before anything needs them."""

from typing import TYPE_CHECKING

from vllm_eplb_plugin.placement.fast_way import import_problem

if TYPE_CHECKING:
    from vllm_eplb_plugin.planning.registry import Chosen


def planning_problem(chosen: "Chosen | None") -> str | None:
    """Say why these cannot plan; None: they can, or nothing is chosen."""
    if chosen is None:
        return None
    if problem := import_problem("vllm_eplb_plugin.planning.registry"):
        return f"the setting planning needs what this environment lacks: {problem}"
    from vllm_eplb_plugin.planning.registry import UnknownPolicyError, make_pipeline

    try:
        make_pipeline(chosen)
    except UnknownPolicyError as error:
        return f"the setting planning: {error}"
    return None
