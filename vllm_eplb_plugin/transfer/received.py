# SPDX-License-Identifier: Apache-2.0
"""What a rank has received of one layer, as vLLM's ``move_from_buffer`` wants to be told."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.transfer.pulls import Slots


@dataclass(frozen=True)
class Received:
    """Stands for vLLM's ``TransferMetadata``, and for ``RecvMetadata`` before 0.20."""

    is_unchanged: NDArray[np.bool_]
    is_received_locally: NDArray[np.bool_]
    recv_primary_mask: NDArray[np.bool_]
    recv_expert_ids: NDArray[np.int64]
    recv_dst_rows: NDArray[np.int32]
    recv_count: int = 0

    @classmethod
    def nothing(cls, slots: int) -> "Received":
        """Say what ``move_to_buffer`` of vLLM would of a rank's slots that all keep an expert."""
        return cls(
            is_unchanged=np.ones(slots, np.bool_),
            is_received_locally=np.ones(slots, np.bool_),
            recv_primary_mask=np.zeros(slots, np.bool_),
            recv_expert_ids=np.full(slots, -1, np.int64),
            recv_dst_rows=np.full(slots, -1, np.int32),
        )

    @classmethod
    def of(cls, held: Slots, wanted: Slots) -> "Received":
        """Say what ``move_to_buffer`` of vLLM would of a rank whose slots get other experts.

        Args:
            held: ``[slots]``, the logical expert in each slot before; -1: none.
            wanted: ``[slots]``, the one that it gets.
        """
        unchanged = held == wanted
        local = unchanged | ((wanted >= 0) & np.isin(wanted, held))
        missing = np.flatnonzero(~local & (wanted >= 0))
        experts, firsts = np.unique(wanted[missing], return_index=True)
        answer, count = cls.nothing(len(wanted)), len(experts)
        answer.recv_expert_ids[:count] = experts
        answer.recv_dst_rows[:count] = missing[firsts]
        answer.recv_primary_mask[missing[firsts]] = True
        return cls(
            unchanged,
            local,
            answer.recv_primary_mask,
            answer.recv_expert_ids,
            answer.recv_dst_rows,
            count,
        )

    def as_before_0_20(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], "Received"]:
        """Return what ``move_to_buffer`` of vLLM 0.18 and 0.19 does."""
        return self.is_unchanged, self.is_received_locally, self
