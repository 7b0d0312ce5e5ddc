# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and termination: how they end what runs, and moments in which they have to wait."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_CODE = 2
_AGAIN_SECONDS = 0.02
_Handler = Callable[[int, FrameType | None], None]


def interrupts_end_at_once() -> None:
    """Each of Ctrl-C, SIGTERM and a closed terminal ends this process, which has started nothing.

    An exception would be swallowed by some of the libraries that are imported meanwhile, or be
    shown with a traceback.
    """

    def end(signal_number: int, frame: FrameType | None) -> None:
        _tell("interrupted")
        os._exit(_EXIT_CODE)

    for one in _taken():
        signal.signal(one, end)


def interrupts_change_nothing() -> None:
    """Each of Ctrl-C, SIGTERM and a closed terminal is ignored: the exit code is decided.

    Python gives them back their default while it ends, which with torch takes seconds on a busy
    machine: they would kill a process that has its verdict. So would one that was raised in a text
    that a library executes, such as dataclasses' methods: CPython (`run_eval_code_obj`) remembers
    it until the next text is executed, and kills a process in which it is remembered at its end.
    """
    for one in _taken():
        signal.signal(one, signal.SIG_IGN)
    exec("")


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Each of Ctrl-C, SIGTERM and a closed terminal raises ``KeyboardInterrupt`` inside."""

    arrived: list[int] = []

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        arrived.append(signal_number)
        _tell("interrupted: stopping what was started")
        raise KeyboardInterrupt

    with _handled_by(interrupt), _raised_again(arrived):
        yield


@contextmanager
def _raised_again(arrived: Sequence[int]) -> Iterator[None]:
    """What is raised in a finaliser is printed by Python and goes no further: send it anew."""
    before = sys.unraisablehook

    def look(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        # Not from in here: this is still the finaliser.
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), arrived[-1]))
        again.daemon = True
        again.start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before


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
def _handled_by(handler: _Handler) -> Iterator[None]:
    taken = _taken()
    before = {one: signal.signal(one, handler) for one in taken}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)


def _taken() -> list[signal.Signals]:
    # Who starts the harness with nohup wants SIGHUP to stay ignored.
    return [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]


def _tell(text: str) -> None:
    # Not by print: the signal may have come while something was being printed.
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        # Nobody reads it.
        return
