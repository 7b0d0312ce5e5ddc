# SPDX-License-Identifier: Apache-2.0
"""How long every `EplbState.step` holds the thread that runs the model (docs/settings.md)."""

import functools
import time
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.observe.delivery import Delivery
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines


def write_step_times(state: Any, folder: Path, rank: int) -> None:
    """Time every step of one `EplbState`, vLLM's own or overridden, into ``steps<rank>.jsonl``.

    A line has the Unix time at the end, the seconds that the call took, and whether a
    rearrangement was under way, began or, in sync mode, took place in it.
    """
    delivery = Delivery(
        JsonLines(folder / f"steps{rank}.jsonl"),
        lambda number, reason: {"dropped": number, "reason": reason},
    )
    original = state.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> None:
        moving = any(model.rebalanced for model in state.model_states.values())
        counter = state.expert_rearrangement_step
        started = time.perf_counter()
        original(*args, **kwargs)
        seconds = time.perf_counter() - started
        began = state.expert_rearrangement_step < counter
        line = {"time": time.time(), "seconds": seconds, "rearranging": moving or began}
        delivery.tell(lambda: (line,))

    # On the instance: outside of whatever is bound to the class.
    state.step = step
