# SPDX-License-Identifier: Apache-2.0
"""From the thread that runs the model to the sinks: what is told there costs a queue's entry.

Nobody is woken for it, which would take more of that thread's time than all the rest: the thread
that delivers looks for itself.
"""

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import util
from typing import Any, Protocol

logger = logging.getLogger("vllm.eplb_plugin")

Line = Mapping[str, Any]
Telling = Callable[[], Iterable[Line | None]]
"""Makes lines, on the thread that delivers them; None between steps of a long computation."""


class Sink(Protocol):
    """Somebody who is told."""

    def write(self, line: Line) -> Iterator[None]:
        """Take one line; yield between pieces of work that hold the interpreter's lock.

        Raises:
            OSError: It cannot be written; the sink is as if nobody had tried.
        """

    def close(self) -> None:
        """Let go of whatever it holds."""


_MOST_WAITING = 10_000
"""Of those that were told and not delivered; 50 rearrangements of 60 layers with all checks."""
_SECONDS_BETWEEN_LOOKS = 0.1
"""At its queue, by a thread that has nothing to do."""
_PAUSE_SECONDS = 0.0001
"""After each piece of work, in which any other thread can take the interpreter's lock. A wait of
no time would mostly give it back to this thread."""
_SECONDS_TO_DELIVER_AT_THE_END = 1.0


_all: "weakref.WeakSet[Delivery]" = weakref.WeakSet()


def flush_all(seconds: float) -> bool:
    """Wait until all that this process told so far is delivered; False: it took longer."""
    return all(delivery.flush(seconds) for delivery in _all)


class Delivery:
    """A delivery is one sink's queue and thread.

    What does not fit or cannot be written is dropped, counted, told in the log once, and told in
    the sink as soon as that can be written again.
    """

    def __init__(
        self,
        sink: Sink,
        dropped_line: Callable[[int, str], Line],
        what: str = "events",
        most_waiting: int | None = None,
        idle: Callable[[], Iterator[None]] = lambda: iter(()),
    ) -> None:
        """Start the thread.

        Args:
            sink: Where lines go.
            dropped_line: Makes the line that tells of lines that were dropped, of their number
                and the last reason.
            what: What is dropped, for the log.
            most_waiting: Of what was told and not delivered; None: 10,000.
            idle: Called ten times a second where nothing waits; it yields as `Sink.write` does.
        """
        self._sink, self._what, self._idle = sink, what, idle
        self._most_waiting = _MOST_WAITING if most_waiting is None else most_waiting
        self._dropped_line = dropped_line
        self._queue: deque[Telling | None] = deque()
        self._look_now = threading.Event()
        # Each is counted by one side, so that neither waits for the other; two threads that tell
        # into a full queue at the same moment may be counted as one.
        self._refused, self._failed, self._told = 0, 0, 0
        self._reason, self._warned = "", False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eplb-delivery", daemon=True)
        self._thread.start()
        _all.add(self)
        # vLLM's workers end without atexit, as all processes of multiprocessing do.
        util.Finalize(self, self.close, exitpriority=10)
        atexit.register(self.close)

    @property
    def dropped(self) -> int:
        """How many were not delivered."""
        return self._refused + self._failed

    def tell(self, telling: Telling) -> None:
        """Hand over what is to be told; this never waits and never fails."""
        if len(self._queue) < self._most_waiting:
            self._queue.append(telling)
        else:
            self._refused += 1
            self._explain(f"more than {self._most_waiting} wait to be written")

    def flush(self, seconds: float) -> bool:
        """Wait until all that was told so far is delivered; False: it took longer."""
        delivered = threading.Event()

        def mark() -> Iterator[Line | None]:
            delivered.set()
            return iter(())

        self._queue.append(mark)
        self._look_now.set()
        return self._ended.is_set() or delivered.wait(seconds)

    def close(self) -> None:
        """Deliver what is left, for a second at most."""
        if not self._ended.is_set():
            self._queue.append(None)
            self._look_now.set()
            self._ended.wait(_SECONDS_TO_DELIVER_AT_THE_END)

    def _run(self) -> None:
        while (telling := self._next()) is not None:
            self._deliver(telling)
        self._sink.close()
        self._ended.set()

    def _next(self) -> Telling | None:
        while not self._queue:
            for _ in self._idle():
                time.sleep(_PAUSE_SECONDS)
            self._look_now.wait(_SECONDS_BETWEEN_LOOKS)
            self._look_now.clear()
        return self._queue.popleft()

    def _deliver(self, telling: Telling) -> None:
        try:
            for line in telling():
                if line is None:
                    time.sleep(_PAUSE_SECONDS)
                else:
                    self._write_or_drop(line)
        except Exception as error:  # events that cannot be made cost nobody the next ones
            self._drop(f"{type(error).__name__}: {error}")

    def _write_or_drop(self, line: Line) -> None:
        try:
            if (dropped := self.dropped) > self._told:
                self._write(self._dropped_line(dropped - self._told, self._reason))
                self._told = dropped
            self._write(line)
        except OSError as error:
            self._drop(str(error))

    def _write(self, line: Line) -> None:
        for _ in self._sink.write(line):
            time.sleep(_PAUSE_SECONDS)
        time.sleep(_PAUSE_SECONDS)

    def _drop(self, reason: str) -> None:
        self._failed += 1
        self._explain(reason)

    def _explain(self, reason: str) -> None:
        self._reason = reason
        if not self._warned:
            self._warned = True
            logger.error(
                "EPLB %s are dropped, and counted where they can be written again: %s. "
                "Serving goes on.",
                self._what,
                reason,
            )
