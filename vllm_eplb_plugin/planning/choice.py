# SPDX-License-Identifier: Apache-2.0
"""Which implementation of vLLM's default policy plans: the compiled one, if it plans the same."""

import functools
import logging
from collections.abc import Iterator

import torch

from vllm_eplb_plugin.planning.guard import Policy

logger = logging.getLogger("vllm.eplb_plugin")

_SHAPES = ((6, 64, 8, 8, 2, 8), (4, 16, 4, 1, 1, 4), (3, 8, 0, 1, 1, 8))
"""Layers, logical and redundant experts, groups, nodes and ranks of what is compared."""


@functools.cache
def fastest(policy: Policy) -> Policy:
    """The compiled policy if it places as ``policy``, vLLM's default one, does; else ``policy``.

    The two are compared once a process, on loads with and without ties. This takes a few seconds
    where numba has to compile, and milliseconds later.
    """
    try:
        from vllm_eplb_plugin.planning.default_policy import CompiledPolicy
    except ImportError as error:
        logger.warning("EPLB plans with vLLM's own policy, which is slower: %s", error)
        return policy
    for arguments in _questions():
        own = policy.rebalance_experts(*arguments)
        own = own[0] if isinstance(own, tuple) else own
        if not torch.equal(own.cpu(), CompiledPolicy.rebalance_experts(*arguments)):
            logger.warning(
                "EPLB plans with vLLM's own policy, which is slower: this vLLM's places experts "
                "differently from the compiled one. Please report the release."
            )
            return policy
    return CompiledPolicy


def _questions() -> Iterator[tuple[torch.Tensor, int, int, int, int, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for layers, logical, redundant, groups, nodes, ranks in _SHAPES:
        slots = logical + redundant
        for most in (1, 4, 10_000):
            load = torch.randint(0, most, (layers, logical), generator=generator)
            old = torch.rand(layers, slots, generator=generator).argsort(dim=1) % logical
            yield load, slots, groups, nodes, ranks, old
