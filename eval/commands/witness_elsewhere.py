# SPDX-License-Identifier: Apache-2.0
"""The witness of a server that runs elsewhere: its metrics, and its events where they are read."""

import time
from pathlib import Path

import httpx

from eval.activity.by_metrics import SETTLED_SECONDS, activity_by_metrics
from eval.activity.copying import copy_events
from eval.activity.counts import read_activity
from eval.activity.events import files_of_all_ranks
from eval.activity.scrapes import FILE, Scrape, another_process, read_scrape
from eval.commands.witnesses import Witnessed
from eval.config.schema import Arm, Config
from eval.errors import EventsError, ServerError
from eval.results.elsewhere import ServedElsewhere, witness_of
from eval.results.writing import write_atomically
from eval.secrets import SECRETS
from eval.serving.elsewhere import Elsewhere


class OfElsewhere:
    """What looks on from outside; see `eval.commands.witnesses.Witness`."""

    def __init__(self, config: Config, arm: Arm, folder: Path, key: str | None) -> None:
        """Prepare, without asking anything.

        Args:
            config: Whose arm it is.
            arm: With a url.
            folder: Of the arm, is there.
            key: For its server.
        """
        self.arm, self.folder = arm, folder
        self.server = Elsewhere(config, arm, key)
        self._label = f"arm {arm.name}"
        self._scrapes: list[Scrape] = []
        self._unreadable = ""
        """Why there is no scrape."""

    @property
    def is_ready(self) -> str:
        """See `Witness`."""
        return f"its server runs elsewhere, at {self.server.shown}"

    def begin(self) -> None:
        """See `Witness`."""
        self.server.require_own_answers(self._label)
        try:
            self._scrapes = [self._scrape()]
        except (httpx.HTTPError, ValueError) as error:
            self._unreadable = f"{type(error).__name__}: {error}"

    def says(self) -> str:
        """See `Witness`."""
        return ""

    def task_is_done(self) -> None:
        """See `Witness`."""
        if self._unreadable:
            return
        try:
            self._scrapes.append(self._scrape())
        except (httpx.HTTPError, ValueError) as error:
            url = f"{self.server.url}/metrics"
            what = f"{self._label}: {url} could be read before the questions, and then not"
            raise self.server.stopped_answering(what, f"{type(error).__name__}: {error}") from error
        changed = another_process(self._scrapes)
        if changed is not None:
            raise ServerError(
                f"{self._label}: the server at {self.server.url} was started again while it was "
                f"asked, or a router answers for several: {changed}. So its answers are not those "
                "of one server. Give the address of one that stays; the same command asks this "
                "arm anew"
            )

    def so_far(self, asked_from: float, asked_until: float) -> Witnessed:
        """See `Witness`."""
        # Ranks write their events and their figures a while later.
        time.sleep(SETTLED_SECONDS)
        self.task_is_done()
        return self._witnessed(asked_from, asked_until)

    def end(self, asked_from: float, asked_until: float) -> Witnessed:
        """See `Witness`."""
        time.sleep(SETTLED_SECONDS)
        self.server.require_own_answers(self._label)
        self.task_is_done()
        return self._witnessed(asked_from, asked_until)

    def _witnessed(self, asked_from: float, asked_until: float) -> Witnessed:
        lines = "".join(f"{one.model_dump_json()}\n" for one in self._scrapes)
        if self._scrapes:
            write_atomically(self.folder / FILE, SECRETS.hide(lines))
        copied = self._copy_events()
        witness = witness_of(self.arm.eplb is not None, copied > 0, self._scrapes)
        if witness == "metrics":
            activity = activity_by_metrics(self._scrapes, asked_from, asked_until)
        else:
            activity = read_activity(self.folder / "events", asked_from, asked_until)
        return Witnessed(
            activity=activity,
            generated_tokens=self._tokens(),
            logged_rearrangements=0,
            log_asked=None,
            start_seconds=None,
            command=[],
            log="",
            elsewhere=ServedElsewhere(
                url=self.server.shown,
                served_model=self.server.model_name,
                with_key="Authorization" in self.server.headers,
                release=self.server.release(),
                witness=witness,
                lacking=self._lacking(copied),
            ),
        )

    def _scrape(self) -> Scrape:
        asked = time.time()
        return read_scrape(self.server.metrics(), asked)

    def _tokens(self) -> float | None:
        counted = [one.generated_tokens for one in self._scrapes]
        if not counted or counted[0] is None or counted[-1] is None:
            return None
        return counted[-1] - counted[0]

    def _copy_events(self) -> int:
        """Copy the files of all ranks into the run; how many."""
        if self.arm.events is None:
            return 0
        files = files_of_all_ranks(Path(self.arm.events))
        try:
            for file in files:
                to = self.folder / "events" / file.name
                to.parent.mkdir(exist_ok=True)
                copy_events(file, to, self._scrapes[0].process_started if self._scrapes else None)
        except OSError as error:
            raise EventsError(
                f"{self._label}: events cannot be copied from {self.arm.events} into the run "
                f"({error.strerror}: {error.filename}): make them readable, and make room"
            ) from error
        return len(files)

    def _lacking(self, copied: int) -> str:
        reasons = []
        if self.arm.events is None:
            reasons.append("it names no folder of events")
        elif not copied:
            reasons.append(f"no rank has written into its folder of events, {self.arm.events}")
        if self._unreadable:
            reasons.append(f"its /metrics cannot be read ({self._unreadable})")
        elif not any(one.names_eplb for one in self._scrapes):
            reasons.append("its /metrics tells nothing of EPLB")
        return SECRETS.hide("; ".join(reasons))
