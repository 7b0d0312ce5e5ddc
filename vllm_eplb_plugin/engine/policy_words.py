# SPDX-License-Identifier: Apache-2.0
"""What plans, as the log, metrics and `vllm-eplb status` call it."""

from typing import Any

from vllm_eplb_plugin.engine.planner import Planner


def policy_in_words(policy: Any) -> str:
    """Say in a few words what plans, with its steps.

    Args:
        policy: What vLLM set, or its compiled form, or the planner (`Session.policy`).
    """
    if isinstance(policy, Planner):
        return policy.description
    name = getattr(policy, "__name__", type(policy).__name__)
    return "vLLM's default, compiled" if name == "CompiledPolicy" else f"vLLM's own {name}"
