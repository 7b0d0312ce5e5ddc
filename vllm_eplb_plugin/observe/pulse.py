# SPDX-License-Identifier: Apache-2.0
"""A sign of life: what a rank tells the others every second, whatever its threads wait for."""

import json
from dataclasses import asdict, dataclass

from vllm_eplb_plugin.observe.status import State, ThreadStatus


@dataclass(frozen=True)
class Pulse:
    """A pulse is what the threads of EPLB on one rank do at one moment."""

    number: int
    """Counts from 1; the same number again is the same pulse."""
    step: int
    """Engine steps since the model was loaded."""
    model_thread: ThreadStatus
    worker: ThreadStatus | None
    """None: sync mode."""
    state: State
    gives_up: str | None = None
    """Why the rank gives up what is under way."""
    has_stuck_worker: bool = False
    """Because its worker stands still, which has not ended."""

    def to_json(self) -> str:
        """Return it as it is sent."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Pulse":
        """Read what `to_json` made."""
        told = json.loads(text)
        told["model_thread"] = ThreadStatus(**told["model_thread"])
        told["worker"] = told["worker"] and ThreadStatus(**told["worker"])
        return cls(**told)


@dataclass(frozen=True)
class Heard:
    """A pulse, and when a rank heard it for the first time."""

    pulse: Pulse
    at: float
    """By `time.monotonic` of the rank that heard it: clocks of hosts are never compared."""
