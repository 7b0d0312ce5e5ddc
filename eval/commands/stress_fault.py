# SPDX-License-Identifier: Apache-2.0
"""One server in which a fault strikes while it is asked."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue

from eval.activity.after import outcomes_after
from eval.commands.harm import RANK, harm_of
from eval.config.faults import PROMISES, FaultName
from eval.load.churn import Load
from eval.load.fault_load import ask_during
from eval.results.stress import StressWorkload
from eval.results.trial import FaultSeen, Trial
from eval.serving.log_watch import LogWatch, Said
from eval.serving.ranks import processes_of, shared_files
from eval.serving.served_arm import ServedArm

_LATE_SECONDS = 2.0
_HARM_AFTER_SECONDS = 12.0
_SECONDS_TO_END = 120.0
_POLL_SECONDS = 0.2
_STRUCK = r"EPLB breaks as ordered: .* in rearrangement (\d+), at ([\d.]+)\."


class FaultRun:
    """What is done to one server, and what is seen of it."""

    def __init__(
        self, one: ServedArm, workload: StressWorkload, plugin: Mapping[str, JsonValue]
    ) -> None:
        """Prepare, for a server that is asked next; its plugin has these settings."""
        assert workload.fault is not None
        self._one, self._workload = one, workload
        self._fault: FaultName = workload.fault
        self._promise = PROMISES[workload.fault]
        warns = _warn_after(plugin) if self._promise.stands_still else 0.0
        self.seen = FaultSeen(fault=self._fault, rank=RANK, limit=warns + _LATE_SECONDS)
        self._shared: set[Path] = set()

    def ask(self, watch: Callable[[Load], None]) -> tuple[Load, Trial]:
        """Ask while it strikes, and see what the log says."""
        server, workload = self._one.server, self._workload
        said = self._promise.said.replace("{rank}", str(RANK))
        patterns = {"struck": _STRUCK} | ({"noticed": said} if said else {})
        with LogWatch(server.log, patterns) as log:
            load, same_answers = ask_during(
                server.url,
                server.model_name,
                workload.streams,
                workload.seconds,
                workload.hang_seconds,
                self._harm,
                _HARM_AFTER_SECONDS,
                watch,
                server.headers,
            )
            if self._promise.ends:
                self._wait_for_the_end()
        self._take_note(log.found)
        return load, Trial(fault=self.seen, same_answers=same_answers)

    def _harm(self) -> None:
        if self._promise.from_outside:
            self._shared = shared_files(self._one.server.session)
            self.seen.struck = time.time()
        harm_of(self._fault, self._one, self._workload.fault_seconds)()

    def _wait_for_the_end(self) -> None:
        session = self._one.server.session
        deadline = time.monotonic() + _SECONDS_TO_END
        while (living := processes_of(session)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not living and self.seen.struck is not None:
            self.seen.ended_after = round(time.time() - self.seen.struck, 2)
        self.seen.left = [f"process {pid}" for pid in living]
        self.seen.left += [str(path) for path in sorted(self._shared) if path.exists()]
        self.seen.left += self._one.server.left

    def _take_note(self, found: Mapping[str, Said]) -> None:
        if (struck := found.get("struck")) and (told := re.search(_STRUCK, struck.line)):
            self.seen.rearrangement, self.seen.struck = int(told[1]), float(told[2])
        if noticed := found.get("noticed"):
            self.seen.noticed, self.seen.said = noticed


def ends(workload: StressWorkload) -> bool:
    """Say whether the server has to end by what is done to it."""
    return workload.fault is not None and PROMISES[workload.fault].ends


def with_outcomes(trial: Trial, events: Path) -> Trial:
    """Add what became of rearrangements since, when the server has told all that it will."""
    seen = trial.fault
    if seen is None or seen.struck is None:
        return trial
    outcomes = outcomes_after(events, seen.struck)
    return trial.model_copy(update={"fault": seen.model_copy(update={"outcomes": outcomes})})


def _warn_after(plugin: Mapping[str, JsonValue]) -> float:
    watch = plugin.get("watch")
    seconds = watch.get("warn_after_s") if isinstance(watch, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else 30.0
