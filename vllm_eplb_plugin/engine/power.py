# SPDX-License-Identifier: Apache-2.0
"""Whether EPLB is on, and what this rank asks the others for when it cannot go on."""

import logging
import time
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger("vllm.eplb_plugin")


@dataclass
class Power:
    """The power of one `EplbState`: it changes in the same step on all EP ranks."""

    state: Literal["on", "off"] = "on"
    why: str | None = None
    """Why it is not on."""
    asks_to_turn_off: str | None = None
    """Why this rank does. Any thread may write it, once."""
    asked_at: float = 0.0
    """By `time.monotonic`."""
    has_stuck_worker: bool = False
    """This rank's worker stands still: it may still write into vLLM's buffers."""
    is_stuck: bool = False
    """It is off, and some rank has such a worker: nobody may write into those buffers."""

    def ask_to_turn_off(self, why: str, *, has_stuck_worker: bool) -> None:
        """Ask the other ranks, in the next step that all make; the first reason stays."""
        if self.asks_to_turn_off is None and self.state != "off":
            self.asked_at = time.monotonic()
            self.has_stuck_worker = has_stuck_worker
            self.asks_to_turn_off = why

    def turn_off(self, why: str, *, is_stuck: bool) -> None:
        """Be off until the server starts again."""
        self.state, self.why, self.is_stuck = "off", why, is_stuck
        logger.error(
            "EPLB is off until the server starts again: %s. The placement in force stays, and "
            "serving goes on.",
            why,
        )
