# SPDX-License-Identifier: Apache-2.0
"""Whether EPLB is on, and what this rank asks the others for when it cannot go on."""

import logging
import time
from dataclasses import dataclass

from vllm_eplb_plugin.observe.status import Reason, State

logger = logging.getLogger("vllm.eplb_plugin")


STOOD_STILL = "stood still"
"""Begins every reason of a worker that has not ended."""


@dataclass
class Power:
    """The power of one `EplbState`: it changes in the same step on all EP ranks."""

    state: State = "on"
    why: str | None = None
    """Why it is not on."""
    asks_to_turn_off: str | None = None
    """Why this rank does. Any thread may write it, once."""
    asked_at: float = 0.0
    """By `time.monotonic`."""

    def ask_to_turn_off(self, why: str) -> None:
        """Ask the other ranks, in the next step that all make; the first reason stays."""
        if self.asks_to_turn_off is None and self.state != "off":
            self.asked_at = time.monotonic()
            self.asks_to_turn_off = why

    @property
    def is_stuck(self) -> bool:
        """What stood still may still write into vLLM's buffers: nobody else may."""
        return self.state == "off" and STOOD_STILL in (self.why or "")

    @property
    def reason(self) -> Reason:
        """Why it is not on, among few."""
        if self.state == "paused":
            return "operator"
        return "stalled" if self.is_stuck else "worker ended"

    def turn_off(self, why: str) -> None:
        """Be off until the server starts again."""
        self.state, self.why = "off", why
        logger.error(
            "EPLB is off until the server starts again: %s. The placement in force stays, and "
            "serving goes on.",
            why,
        )
