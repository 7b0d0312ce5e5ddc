# SPDX-License-Identifier: Apache-2.0
"""Processes of a server that are forks of its front end."""

import contextlib
import multiprocessing.context
import os
import socket
from collections.abc import Callable, Iterator
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
        with contextlib.suppress(OSError):  # it is no socket, or was that of this loop
            one = socket.socket(fileno=os.dup(int(name)))
            with one:
                listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and one.family in (socket.AF_INET, socket.AF_INET6):
                    yield int(name)


def fork_instead(
    _: Callable[[], multiprocessing.context.BaseContext],
) -> Callable[[], multiprocessing.context.BaseContext]:
    """Replace ``get_mp_context``, where vLLM asks how to start a process."""

    def get_mp_context() -> multiprocessing.context.BaseContext:
        return _Context()

    return get_mp_context
