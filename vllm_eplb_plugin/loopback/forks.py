# SPDX-License-Identifier: Apache-2.0
"""Processes of a server that are forks of its front end."""

import contextlib
import multiprocessing.context
import os
import socket
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path


class _Process(multiprocessing.context.ForkProcess):
    """A fork without the front end's listening sockets: its port is free when it has ended."""

    def run(self) -> None:
        with Path(os.devnull).open("rb") as nothing:
            for listener in _listeners():
                # Its number stays taken: an object of the front end may yet close it.
                os.dup2(nothing.fileno(), listener, inheritable=False)
        super().run()


class _Context(multiprocessing.context.ForkContext):
    Process = _Process


def _listeners() -> Iterator[int]:
    for name in [entry.name for entry in Path("/proc/self/fd").iterdir()]:
        # It may be no socket, or was that of this loop.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if _waits_for_connections(one):
                yield int(name)


def _waits_for_connections(one: socket.socket) -> bool:
    """Whether it does, or will: vLLM's front end binds its port before it starts ranks, and listens
    only when they are ready."""
    if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
        return False
    try:
        one.getpeername()
    except OSError:
        return bool(one.getsockname()[1])
    return False


def fork_instead(
    _: Callable[[], multiprocessing.context.BaseContext],
) -> Callable[[], multiprocessing.context.BaseContext]:
    """Replace ``get_mp_context``, where vLLM asks how to start a process."""

    def get_mp_context() -> multiprocessing.context.BaseContext:
        # One for all, as new interpreters get it: it removes shared memory whose users were killed,
        # and one of a fork's own would be killed with it.
        resource_tracker.ensure_running()
        return _Context()

    return get_mp_context
