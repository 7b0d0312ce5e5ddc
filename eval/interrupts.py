# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and termination: one way out, and moments in which it has to wait."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Each of Ctrl-C, SIGTERM and a closed terminal raises ``KeyboardInterrupt`` inside."""

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        print("interrupted: stopping what was started", file=sys.stderr)
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """What arrives inside takes effect at the end: for what must not be left half done."""
    arrived: list[int] = []

    def remember(signal_number: int, frame: FrameType | None) -> None:
        arrived.append(signal_number)

    try:
        with _handled_by(remember):
            yield
    finally:
        if arrived:
            os.kill(os.getpid(), arrived[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # Who starts the harness with nohup wants SIGHUP to stay ignored.
    taken = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, handler) for one in taken}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)
