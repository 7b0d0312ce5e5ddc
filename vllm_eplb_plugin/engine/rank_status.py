# SPDX-License-Identifier: Apache-2.0
"""What a rank writes of itself for /metrics: put together on the watch's thread."""

import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_eplb_plugin.engine.policy_words import policy_in_words
from vllm_eplb_plugin.observe.status import (
    FOLDER_VARIABLE,
    RankStatus,
    Reason,
    State,
    write_status,
)

if TYPE_CHECKING:
    from vllm_eplb_plugin.engine.session import Session

logger = logging.getLogger("vllm.eplb_plugin")


def tell_status(session: "Session") -> None:
    """Write how EPLB is on this rank, where somebody reads it."""
    folder = os.environ.get(FOLDER_VARIABLE)
    settings = session.settings
    if not folder or (settings.metrics is None and not settings.control):
        return
    try:
        write_status(Path(folder), rank_status(session))
    except OSError as error:  # full, or taken away: the next one may be written again
        if not session.status_is_lost:
            session.status_is_lost = True
            logger.error(
                "EPLB's metrics of this rank are not up to date: %s. Serving goes on.", error
            )


def rank_status(session: "Session") -> RankStatus:
    """Say how EPLB is on this rank."""
    state, source, boards = session.boards.state, session.source, session.boards
    watch = session.watch
    return RankStatus(
        time=time.time(),
        rank=source.rank,
        global_rank=source.global_rank,
        stage=source.stage,
        num_ranks=0 if watch is None else watch.num_ranks,
        host=socket.gethostname(),
        process=os.getpid(),
        mode="async" if state.is_async else "sync",
        policy=policy_in_words(session.policy),
        transfer=session.transfer,
        state=_state(session),
        why=session.power.why,
        step=session.rearrangements.step,
        steps_to_next=_steps_to_next(session, state),
        model_thread=boards.model_status(0.0),
        worker=boards.worker_status(0.0),
        under_way=session.rearrangements.under_way(),
        seconds_in_eplb=session.seconds,
        stalls=0 if watch is None else watch.stalls,
        stalled=[] if watch is None else watch.stalled,
        events_dropped=session.log.dropped,
        reason=_reason(session),
        models=session.log.counts,
        commands=[] if session.commands is None else session.commands.status(),
    )


def _state(session: "Session") -> State:
    is_held = session.commands is not None and session.commands.paused
    return "paused" if is_held and session.power.state == "on" else session.power.state


def _reason(session: "Session") -> Reason | None:
    state = _state(session)
    if state == "off":
        return "stalled" if session.power.is_stuck else "worker ended"
    return "operator" if state == "paused" else None


def _steps_to_next(session: "Session", state: Any) -> int | None:
    if _state(session) != "on" or (session.warm_start and session.warm_start.stays):
        return None
    steps: int = state.expert_rearrangement_step_interval - state.expert_rearrangement_step
    return max(steps, 0)
