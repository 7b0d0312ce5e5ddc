# SPDX-License-Identifier: Apache-2.0
"""Where the threads of one `EplbState` say what they do."""

import threading
import time
from typing import Any

from vllm_eplb_plugin.observe.phases import Doing, ThreadBoard
from vllm_eplb_plugin.observe.status import ThreadStatus


class Boards:
    """The boards of the thread that runs the model and of vLLM's async worker."""

    def __init__(self) -> None:
        """Begin with two threads that do nothing."""
        self.model, self.worker = ThreadBoard(), ThreadBoard()
        self.state: Any = None
        """The `EplbState`, which starts the worker later."""

    @property
    def here(self) -> ThreadBoard:
        """That of the calling thread."""
        return self.worker if self.is_worker else self.model

    @property
    def is_worker(self) -> bool:
        """The calling thread is the async worker."""
        return threading.current_thread() is getattr(self.state, "async_worker", None)

    def model_status(self, since: float) -> ThreadStatus:
        """Say what the thread that runs the model does; nothing counts that was before a moment."""
        return _status(self.model.doing, since)

    def worker_status(self, since: float) -> ThreadStatus | None:
        """Say what the worker does; None: sync mode, in which there is none."""
        if not self.state.is_async:
            return None
        thread, doing = self.state.async_worker, self.worker.doing
        if thread is not None and not thread.is_alive():
            doing = Doing("ended", doing.layer, doing.since)
        return _status(doing, since)


def _status(doing: Doing, since: float) -> ThreadStatus:
    return ThreadStatus(doing.phase, doing.layer, time.monotonic() - max(doing.since, since))
