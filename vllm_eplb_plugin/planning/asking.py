# SPDX-License-Identifier: Apache-2.0
"""A policy that does not answer is left alone, and never asked again."""

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")


class PolicyHangsError(RuntimeError):
    """A policy has not answered in time, or still has not."""


class _Question(Generic[_Answer]):
    """A question that is asked on a thread of its own."""

    def __init__(self, ask: Callable[[], _Answer]) -> None:
        self.answer: _Answer
        self.error: BaseException | None = None
        self._ask, self._context = ask, contextvars.copy_context()
        # A thread that never ends must not keep the process.
        self.thread = threading.Thread(target=self._run, name="eplb-policy", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._context.run(self._ask)
        except BaseException as error:  # raised again by who waits
            self.error = error


class Asker:
    """An asker waits for an answer, within a limit."""

    def __init__(self) -> None:
        self.prepare: Callable[[], None] = lambda: None
        """What a thread that asks begins with."""
        self._unanswered: threading.Thread | None = None

    def ask(self, question: Callable[[], _Answer], limit_seconds: float) -> _Answer:
        """Return the answer, or raise what the question raises.

        Raises:
            PolicyHangsError: It takes longer than the limit, or an earlier one still does.
        """
        if self._unanswered is not None and self._unanswered.is_alive():
            raise PolicyHangsError("it still has not answered an earlier question")

        def ask() -> _Answer:
            self.prepare()
            return question()

        asked = _Question(ask)
        asked.thread.join(limit_seconds)
        if asked.thread.is_alive():
            self._unanswered = asked.thread
            raise PolicyHangsError(
                f"it has not answered in {limit_seconds:g} s, and is not asked again before it has"
            )
        if asked.error is not None:
            raise asked.error
        return asked.answer
