# SPDX-License-Identifier: Apache-2.0
"""A layer whose placement stays is not transferred: nothing is planned, copied or waited for."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIXES = (
    "A layer whose placement stays is planned slot by slot like one that changes, and with NIXL "
    "all ranks wait for each other in it."
)
"""Of overrides of ``move_to_buffer``, beside what else they fix."""


@dataclass(frozen=True)
class NothingReceived:
    """Stands for vLLM's ``TransferMetadata`` (and ``RecvMetadata`` before 0.20) of such a layer."""

    is_unchanged: NDArray[np.bool_]
    is_received_locally: NDArray[np.bool_]
    recv_primary_mask: NDArray[np.bool_]
    recv_expert_ids: NDArray[np.int64]
    recv_dst_rows: NDArray[np.int32]
    recv_count: int = 0

    @classmethod
    def of(cls, slots: int) -> "NothingReceived":
        """Say what ``move_to_buffer`` of vLLM would of a rank's slots that all keep an expert."""
        return cls(
            is_unchanged=np.ones(slots, np.bool_),
            is_received_locally=np.ones(slots, np.bool_),
            recv_primary_mask=np.zeros(slots, np.bool_),
            recv_expert_ids=np.full(slots, -1, np.int64),
            recv_dst_rows=np.full(slots, -1, np.int32),
        )


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
        nothing = NothingReceived.of(num_local_experts)
        if before_0_20:
            return nothing.is_unchanged, nothing.is_received_locally, nothing
        return nothing

    return call
