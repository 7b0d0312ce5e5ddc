# SPDX-License-Identifier: Apache-2.0
"""The threads of one `EplbState` are ended before what they use is taken down."""

import logging
from typing import Any

from vllm_eplb_plugin.engine.session import session_of

logger = logging.getLogger("vllm.eplb_plugin")

_SECONDS_TO_END = 2.0


class WorkerEnds(BaseException):
    """Leaves the async worker's loop; no error, and nothing that catches errors catches it."""


class _Ended:
    """Stands for the `threading.Event` that a worker waits for, and clears when it is woken."""

    def clear(self) -> None:
        raise WorkerEnds


def end(state: Any) -> None:
    """End the watch, and the async worker where it waits.

    A worker that is amid a transfer, or waits for other ranks, is left to the end of the process.
    """
    session = session_of(state)
    if session.watch is not None:
        session.watch.end()
    worker = state.async_worker
    if worker is None or not worker.is_alive():
        return
    for model_state in state.model_states.values():
        model_state.rebalanced = False  # ends the loop of 0.18 and 0.19
        if (result := getattr(model_state, "pending_result", None)) is not None:
            _wake(result.consumed_event)
    _wake(state.rearrange_event, state)
    worker.join(_SECONDS_TO_END)
    if worker.is_alive():
        logger.info("EPLB's async worker is amid a transfer, and ends with its process.")


def _wake(event: Any, owner: Any = None) -> None:
    """Let whoever waits for an event of vLLM find its end instead."""
    if hasattr(event, "_recorded"):  # a `CpuGpuEvent`, 0.20 and later
        owner, name = event, "_recorded"
    else:
        name = "rearrange_event"
    awaited = getattr(owner, name)
    setattr(owner, name, _Ended())
    awaited.set()
