# SPDX-License-Identifier: Apache-2.0
"""Who looks on while an arm is asked, and says afterwards what its server and its EPLB did."""

import time
from pathlib import Path
from typing import NamedTuple, Protocol

from eval.activity.counts import read_activity
from eval.activity.events import DELIVERY_SECONDS
from eval.activity.totals import Activity
from eval.activity.vllm_log import LogTail, count_rearrangements
from eval.config.schema import Arm
from eval.judging.arms import plural
from eval.results.elsewhere import ServedElsewhere
from eval.secrets import SECRETS
from eval.serving.elsewhere import Elsewhere
from eval.serving.served_arm import ServedArm
from eval.serving.server import Server


class Witnessed(NamedTuple):
    """What an arm's server did while it was asked."""

    activity: Activity
    generated_tokens: float | None
    """None: the server does not tell."""
    logged_rearrangements: int
    log_asked: tuple[int, int] | None
    """Bytes of the log; none: it is not here."""
    start_seconds: float | None
    command: list[str]
    log: str
    elsewhere: ServedElsewhere | None


class Witness(Protocol):
    """What the two kinds of arms have alike."""

    arm: Arm
    folder: Path
    """Of the arm."""

    @property
    def server(self) -> Server | Elsewhere:
        """Whose it is."""

    @property
    def is_ready(self) -> str:
        """For the person, before anything is asked."""

    def begin(self) -> None:
        """Before the first question.

        Raises:
            ServerError: The server cannot be asked.
        """

    def says(self) -> str:
        """What is worth knowing meanwhile; may be empty."""

    def task_is_done(self) -> None:
        """After the last answer of a task.

        Raises:
            ServerError: The server is not the one that it was.
        """

    def so_far(self, asked_from: float, asked_until: float) -> Witnessed:
        """Between two answers, without what only the end can tell.

        Args:
            asked_from: The first question was sent, in Unix seconds.
            asked_until: The latest answer was received.

        Raises:
            ServerError: The server is not the one that it was.
            EventsError: Its events cannot be read.
        """

    def end(self, asked_from: float, asked_until: float) -> Witnessed:
        """After the last answer of all.

        Args:
            asked_from: The first question was sent, in Unix seconds.
            asked_until: The last answer was received.

        Raises:
            ServerError: The server is not the one that it was.
            EventsError: Its events cannot be read.
        """


class OfStarted:
    """The witness of a server that the harness has started: its log, its events, its tokens."""

    def __init__(self, one: ServedArm) -> None:
        self.arm, self.folder, self.server = one.arm, one.folder, one.server
        self._one = one
        self._tail: LogTail | None = None

    @property
    def is_ready(self) -> str:
        """See `Witness`."""
        return f"server ready after {self._one.ready_after:.1f} s"

    def begin(self) -> None:
        """See `Witness`."""
        self._tokens = self.server.generated_tokens()
        self._log_start = self.server.log.stat().st_size
        if self.arm.eplb is not None:
            self._tail = LogTail(self.server.log, self._log_start)

    def says(self) -> str:
        """See `Witness`."""
        return plural(self._tail.rearrangements(), "rearrangement") if self._tail else ""

    def task_is_done(self) -> None:
        """See `Witness`."""

    def so_far(self, asked_from: float, asked_until: float) -> Witnessed:
        """See `Witness`."""
        if self.arm.eplb is not None:
            # A thread of each rank writes its events, a second later at most (docs/events.md).
            time.sleep(DELIVERY_SECONDS)
        log = self.server.log
        return self._witnessed(asked_from, asked_until, (self._log_start, log.stat().st_size))

    def end(self, asked_from: float, asked_until: float) -> Witnessed:
        """See `Witness`."""
        self.server.require_own_answers(self._one.label)
        log_asked = (self._log_start, self.server.log.stat().st_size)
        tokens = self.server.generated_tokens() - self._tokens
        if self.arm.eplb is not None:
            time.sleep(DELIVERY_SECONDS)
        seen = self._witnessed(asked_from, asked_until, log_asked)
        return seen._replace(generated_tokens=tokens)

    def _witnessed(
        self, asked_from: float, asked_until: float, log_asked: tuple[int, int]
    ) -> Witnessed:
        log = self.server.log
        return Witnessed(
            activity=read_activity(self._one.events, asked_from, asked_until),
            generated_tokens=None,
            logged_rearrangements=count_rearrangements(log, *log_asked),
            log_asked=log_asked,
            start_seconds=self._one.ready_after,
            command=SECRETS.hide_in_command(self._one.command),
            log=str(log),
            elsewhere=None,
        )
