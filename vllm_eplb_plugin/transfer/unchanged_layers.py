# SPDX-License-Identifier: Apache-2.0
"""A layer whose placement stays is not transferred: nothing is planned, copied or waited for."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from vllm_eplb_plugin.transfer.received import Received

FIXES = (
    "A layer whose placement stays is planned slot by slot like one that changes, and with NIXL "
    "all ranks wait for each other in it."
)
"""Of overrides of ``move_to_buffer``, beside what else they fix."""


def unless_unchanged(original: Callable[..., Any], before_0_20: bool = False) -> Callable[..., Any]:
    """Let ``move_to_buffer`` of vLLM, which is called with keywords only, move what changes.

    The decision is on the rows of all ranks and so alike on all of them: nobody waits for a rank
    that leaves the layer out. No rank would send or receive anything in it.

    Args:
        original: vLLM's function, or what is overridden of it already.
        before_0_20: It returns a tuple, of which the last is vLLM's ``RecvMetadata``.
    """

    @functools.wraps(original)
    def call(*, num_local_experts: int, old_indices: Any, new_indices: Any, **others: Any) -> Any:
        if not np.array_equal(old_indices, new_indices):
            return original(
                num_local_experts=num_local_experts,
                old_indices=old_indices,
                new_indices=new_indices,
                **others,
            )
        nothing = Received.nothing(num_local_experts)
        return nothing.as_before_0_20() if before_0_20 else nothing

    return call
