# SPDX-License-Identifier: Apache-2.0
"""Sync mode: no rank writes into a layer's weights while another one still pulls from them."""

import threading
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import ReduceOp, all_reduce
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.rendezvous import RanksMissingError, meet
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.transfer.surviving import LayerFailedError

_NAMING_SECONDS = 5.0
"""How long ranks that wait for one which does not come ask each other who it is."""


class TransferError(RuntimeError):
    """Not all ranks came after a transfer; the message names who did not."""


class Arrivals:
    """What every rank waits for between its pulls of a layer and its writes into the layer.

    In async mode nobody waits: a rank hands a layer over only when its pulls are done, and all
    write only when all have handed it over. In sync mode vLLM writes at once
    (``rebalance_execute.rearrange_expert_weights_inplace``), so ranks add up who has failed, over
    the CPU group of EP, as vLLM's NIXL communicator does.
    """

    def __init__(self, state: Any, limit_seconds: float) -> None:
        """Wait at most so long for other ranks of an `EplbState`."""
        self._state = state
        self._limit = timedelta(seconds=limit_seconds)

    def __call__(self, error: BaseException | None) -> None:
        """Return when all EP ranks have pulled; all of them call.

        Args:
            error: Why this rank has not.

        Raises:
            LayerFailedError: Another rank has not.
            TransferError: Another rank has not come.
        """
        if threading.current_thread() is self._state.async_worker:
            return
        coordinator, boards = get_ep_group(), session_of(self._state).boards
        rank = coordinator.rank_in_group
        failed = torch.tensor([0 if error is None else rank + 1], dtype=torch.int32)
        try:
            group = coordinator.cpu_group
            work = all_reduce(failed, op=ReduceOp.MAX, group=group, async_op=True)
            with boards.model.during("waiting for ranks"):
                work.wait(self._limit)
        except RuntimeError as lost:  # of torch: time is over, or a connection is closed
            raise TransferError(
                f"ranks pull expert weights: not all came in {self._limit.total_seconds():g} s "
                f"({lost}). {_who_is_missing(coordinator)}"
            ) from lost
        if error is None and (first := int(failed)):
            raise LayerFailedError(f"on EP rank {first - 1}, see its log")


def _who_is_missing(coordinator: Any) -> str:
    try:
        meet(coordinator, "ranks after a failed transfer", None, _NAMING_SECONDS)
    except RanksMissingError as error:
        return str(error)
    return "All ranks still run: one was slower than the limit, or is stuck on its device"
