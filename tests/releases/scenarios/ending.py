# SPDX-License-Identifier: Apache-2.0
"""A server that ends: idle, or with a layer that waits to be committed."""

import threading
import time
from typing import Any

from tests.releases.scenarios.unchanged_layers import moving
from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, new_state, record_load, wait_for_worker
from vllm_eplb_plugin.engine.ending import end


def eplb_threads() -> list[str]:
    """Those that look after the ranks."""
    names = [thread.name for thread in threading.enumerate()]
    return sorted({"eplb-heartbeat", "eplb-watch"}.intersection(names))


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Make steps until a layer waits to be committed, or a rearrangement has ended; then end.

    ``job.arguments``: ``amid``, whether the layer is left waiting.
    """
    state = new_state([TinyModel(rank, job.ranks, 3, LOGICAL, job.redundant, 0)], config)
    state.start_async_loop()
    for step in range(job.steps):
        record_load(state, step)
        state.step()
        wait_for_worker(state)
        if moving(state) == job.arguments["amid"] and step >= 12:
            break
    was_alive = state.async_worker.is_alive()
    began = eplb_threads()
    end(state)
    worker = state.async_worker
    until = time.monotonic() + 10
    while eplb_threads() and time.monotonic() < until:
        time.sleep(0.01)
    return {
        "was_alive": was_alive,
        "is_alive": worker.is_alive(),
        "began": began,
        "left": eplb_threads(),
        "off": state.eplb_session.power.why,
    }
