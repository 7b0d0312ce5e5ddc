# SPDX-License-Identifier: Apache-2.0
"""What Linux is asked for about processes; elsewhere nothing happens."""

import ctypes
import signal
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_the_parent() -> None:
    """Have this process killed when its parent has ended: the thread that forked it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_in_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
