# SPDX-License-Identifier: Apache-2.0
"""Override of the loop that vLLM's async worker runs."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm_eplb_plugin.engine.ending import WorkerEnds
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.overrides.override import Override


def _override_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(original):  # 0.18 and 0.19

        @functools.wraps(original)
        async def follow(state: Any, *args: Any, **kwargs: Any) -> None:
            with _ending(session_of(state)):
                await original(state, *args, **kwargs)

        return follow

    @functools.wraps(original)
    def transfer_run_periodically(state: Any, *args: Any, **kwargs: Any) -> None:
        with _ending(session_of(state)):
            original(state, *args, **kwargs)

    return transfer_run_periodically


@contextmanager
def _ending(session: Session) -> Iterator[None]:
    """Let the other ranks know of an error that ends the worker of this one."""
    try:
        yield
    except WorkerEnds:
        return
    except Exception as error:
        worker = session.boards.worker
        phase, layer = worker.doing.phase, worker.doing.layer
        of_layer = "" if layer is None else f" of layer {layer}"
        session.power.ask_to_turn_off(
            f"the async worker has ended in phase {phase}{of_layer}, {type(error).__name__}: "
            f"{error}",
            has_stuck_worker=False,
        )
        worker.enter("ended", layer)
        session.rearrangements.fail(error, is_whole=True)
        raise


OVERRIDES = tuple(
    Override(
        target="vllm.distributed.eplb.async_worker:transfer_run_periodically",
        signature=signature,
        kind="hook",
        replace=_override_loop,
        fixes="An error ends the async worker with a line of the log: the rearrangement that was "
        "under way never ends, no other one starts, and every step asks all ranks in vain "
        "(vLLM #57883).",
        delete_when="vLLM reports rearrangements.",
        releases=releases,
    )
    for releases, signature in (
        ("<0.24", "(state, eplb_group, cuda_stream, is_profile=False)"),
        (">=0.24,<0.31", "(state, cuda_stream, is_profile=False)"),
        (">=0.31", "(state, stream, is_profile=False)"),
    )
)
