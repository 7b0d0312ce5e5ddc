# SPDX-License-Identifier: Apache-2.0
"""A server that stops answering says why."""

from collections.abc import Iterator
from contextlib import contextmanager

from eval.load.completions import CompletionError
from eval.serving.served_arm import ServedArm


@contextmanager
def told_why(one: ServedArm) -> Iterator[None]:
    """Say what a server's log has about a completion that did not come.

    Raises:
        ServerError: Instead of the `CompletionError` inside.
    """
    try:
        yield
    except CompletionError as error:
        stopped = f"{one.label}: the server stopped answering"
        raise one.server.stopped_answering(stopped, str(error)) from error
