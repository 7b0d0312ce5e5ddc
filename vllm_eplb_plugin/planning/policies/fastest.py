# SPDX-License-Identifier: Apache-2.0
"""Which implementation of vLLM's default policy plans: the compiled one, if it plans the same."""

import functools
from collections.abc import Iterator

import torch

from vllm_eplb_plugin.placement.fast_way import FastWay, describe, import_problem
from vllm_eplb_plugin.planning.guard import Policy

_SHAPES = ((6, 64, 8, 8, 2, 8), (4, 16, 4, 1, 1, 4), (3, 8, 0, 1, 1, 8))
"""Layers, logical and redundant experts, groups, nodes and ranks of what is compared."""


@functools.cache
def fastest(policy: Policy) -> Policy:
    """Choose the compiled policy if it places as ``policy``, vLLM's default, does; else ``policy``.

    The two are compared once a process, on loads with and without ties. This takes a few seconds
    where numba has to compile, and milliseconds later.
    """
    if not compiled_way(policy).is_open():
        return policy
    from vllm_eplb_plugin.planning.policies.default import CompiledPolicy

    return CompiledPolicy


def compiled_way(policy: Policy) -> FastWay:
    """Try whether the compiled policy can plan in place of vLLM's default one."""
    problem = import_problem("vllm_eplb_plugin.planning.policies.default") or _difference(policy)
    return FastWay("plans by numba", "EPLB plans with vLLM's own policy", problem)


def _difference(policy: Policy) -> str | None:
    from vllm_eplb_plugin.planning.policies.default import CompiledPolicy

    for arguments in _questions():
        own = policy.rebalance_experts(*arguments)
        own = own[0] if isinstance(own, tuple) else own
        try:
            answer = CompiledPolicy.rebalance_experts(*arguments)
        except Exception as error:  # compiled code of another numba or numpy than was tested
            return describe(error)
        if not torch.equal(own.cpu(), answer):
            return (
                "this vLLM's places experts differently from the compiled one. Please report the "
                "release"
            )
    return None


def _questions() -> Iterator[tuple[torch.Tensor, int, int, int, int, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for layers, logical, redundant, groups, nodes, ranks in _SHAPES:
        slots = logical + redundant
        for most in (1, 4, 10_000):
            load = torch.randint(0, most, (layers, logical), generator=generator)
            old = torch.rand(layers, slots, generator=generator).argsort(dim=1) % logical
            yield load, slots, groups, nodes, ranks, old
