# SPDX-License-Identifier: Apache-2.0
"""Follows the rearrangements of one `EplbState` from their start to their outcome."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllm_eplb_plugin.engine.followed import Followed, Moved
from vllm_eplb_plugin.engine.outcome_events import unfinished
from vllm_eplb_plugin.engine.plan_alone import why_nothing_moves
from vllm_eplb_plugin.engine.plan_events import (
    Finished,
    Moment,
    Origin,
    Planned,
    layers_committed,
    load_measured,
    placement_events,
)
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import Event, Mode, RearrangementStarted, Trigger
from vllm_eplb_plugin.observe.progress import Outcome, Rearrangement
from vllm_eplb_plugin.observe.status import UnderWay
from vllm_eplb_plugin.planning.guard import Plan

if TYPE_CHECKING:
    from vllm_eplb_plugin.engine.load_recorder import LoadRecorder

_WHOLE = "What was committed is whole and stays"

logger = logging.getLogger("vllm.eplb_plugin")


class Rearrangements:
    """Every rearrangement of every model gets one outcome here, which is counted and told.

    vLLM plans its models one after another, in their order, so a plan belongs to the first model
    that has none. A plan that no rearrangement asked for, as when memory is profiled, is not
    followed.
    """

    def __init__(self, log: EventLog) -> None:
        self.step = 0
        """Engine steps since the model was loaded."""
        self.number = 0
        """Of rearrangements that started."""
        self.trigger: Trigger = "other"
        """Why the next one starts."""
        self.only_plan = False
        """Whether the next one moves nothing, and tells what it would."""
        self.committed_in = 0
        """Engine step in which a layer that changes was committed last."""
        self.tell_end: Callable[[int, str, Outcome, object], None] | None = None
        """Whom to tell outcomes: number, model, outcome and reason, on the thread that finds it."""
        self.recorder: LoadRecorder | None = None
        """Who records what is planned from, and what comes of it; None: nobody."""
        self.outcomes: Counter[Outcome] = Counter()
        """Over models."""
        self._log = log
        self._followed: dict[int, Followed] = {}
        self._rejection: str | None = None
        self._unplanned: deque[Followed] = deque()
        # The async worker can fail while the thread that runs the model starts the next one.
        self._ending = threading.Lock()

    def start(self, mode: Mode, models: Iterable[Moved]) -> None:
        """Start one rearrangement of all models; those that have no outcome have failed."""
        self.end_open("failed", "vLLM gave it up: the next rearrangement started")
        self.number += 1
        now = time.monotonic()
        for model in models:
            layers = len(model.expert_bytes)
            progress = Rearrangement(self.number, self.step, mode, now, layers)
            followed = Followed(model, progress, self.trigger, self.only_plan)
            self._followed[model.id.model_index] = followed
            self._tell(RearrangementStarted(*followed.moment(self.step)))
        self.only_plan = False
        self._unplanned = deque(self._followed.values())

    def only_plans(self) -> bool:
        """Say whether the model that is planned next only is, and nothing of it moves."""
        return bool(self._unplanned) and self._unplanned[0].only_plan

    def under_way(self) -> UnderWay | None:
        """Say what has begun and not ended; any thread may ask."""
        for followed in list(self._followed.values()):
            if followed.progress.is_open:
                awaited = followed.progress.awaited
                left = None if awaited is None else len(awaited)
                return UnderWay(followed.progress.number, followed.seconds, left)
        return None

    def to_plan(self, mode: Mode) -> Moved | None:
        """Return the model that is planned next; None: nobody follows what is planned now."""
        # Elastic EP before 0.24 starts a sync one while the async worker is still planning.
        if not self._unplanned or self._unplanned[0].progress.mode != mode:
            return None
        return self._unplanned[0].model

    def planned(self, plan: Plan, mode: Mode, origin: Origin | None = None) -> None:
        """Take a plan that every rank has checked; this runs in the thread that plans."""
        if self.to_plan(mode) is None:
            return
        followed = self._unplanned.popleft()
        if self._log.source.speaks_for_all:
            moment = followed.moment(self.step)
            self._log.tell(lambda: load_measured(moment, plan))
        if self.recorder is not None:
            self.recorder.planned(followed, plan)
        if plan.rejection is not None:
            if self._end(followed, "rejected", plan.rejection):
                # The same again, as of a policy that still hangs, was told.
                level = logging.DEBUG if plan.rejection == self._rejection else logging.ERROR
                self._rejection = plan.rejection
                logger.log(
                    level,
                    "EPLB placement rejected (%d so far), the old one stays: %s",
                    self.outcomes["rejected"],
                    plan.rejection,
                )
            return
        changed = [layer for layer, slots in enumerate(plan.slots_changed) if slots]
        with self._ending:
            if not followed.progress.is_open:
                return
            followed.plan = plan
            followed.progress.plan(changed)
        if not changed:
            reason = why_nothing_moves(plan, origin, followed.model.expert_bytes)
            self._end(followed, "skipped", reason)
            return
        planned = Planned(
            followed.moment(self.step),
            plan,
            origin or Origin(),
            followed.trigger,
            followed.model.expert_bytes,
            followed.seconds,
        )
        self._log.tell(planned.events)

    def committed(self, model_index: int, layers: Iterable[int]) -> None:
        """Take notice that layers of a model just became visible."""
        followed = self._followed.get(model_index)
        if followed is None or followed.plan is None:
            return
        if changed := followed.progress.commit(layers):
            self.committed_in = self.step
            plan, step = followed.plan, self.step
            self._log.tell(lambda: layers_committed(followed.moment(step), plan, changed))
            if not followed.progress.awaited:
                self._end(followed, "finished")

    def end_open(self, outcome: Outcome, reason: str = "") -> None:
        """Give this outcome to each rearrangement that has none."""
        for followed in self._followed.values():
            self._end(followed, outcome, reason)

    def fail(self, error: BaseException, is_whole: bool) -> None:
        """Fail those that have no outcome.

        Args:
            error: Why.
            is_whole: Whether every layer's weights are where its maps say, as they are unless the
                thread that runs the model failed between the two.
        """
        broken = "Weights may be where the maps do not say: do not go on serving"
        reason = f"{type(error).__name__}: {error}. {_WHOLE if is_whole else broken}"
        self.end_open("failed", reason)

    def give_up(self, outcome: Outcome, why: str, model_index: int | None = None) -> None:
        """Fail the rearrangement of a model, or of all, of which nothing more is committed."""
        for followed in self._followed.values():
            if model_index in (None, followed.model.id.model_index):
                self._end(followed, outcome, f"{why}. {_WHOLE}")

    @contextmanager
    def failing(self, is_whole: bool) -> Iterator[None]:
        """Fail open rearrangements by what is raised inside, which is raised all the same."""
        try:
            yield
        except BaseException as error:
            self.fail(error, is_whole)
            raise

    def _end(self, followed: Followed, outcome: Outcome, reason: object = "") -> bool:
        """Give it this outcome and tell it; False: it has one."""
        with self._ending:
            if not followed.progress.end(outcome):
                return False
            self.outcomes[outcome] += 1
        moment, seconds = followed.moment(self.step), followed.seconds
        if outcome in ("failed", "stalled"):
            number, model = moment.rearrangement, moment.model
            logger.error("EPLB rearrangement %d of %s %s: %s.", number, model, outcome, reason)
        if outcome != "finished":
            awaited = followed.progress.awaited
            left = None if awaited is None else len(awaited)
            self._log.tell(lambda: (unfinished(outcome, moment, str(reason), left, seconds),))
        if self.tell_end is not None:
            self.tell_end(moment.rearrangement, moment.model, outcome, reason)
        if followed.plan is not None:
            self._tell_placement(followed, followed.plan, moment, seconds)
        if self.recorder is not None:
            self.recorder.ended(followed)
        return True

    def _tell_placement(
        self, followed: Followed, plan: Plan, moment: Moment, seconds: float
    ) -> None:
        """What changed, and where experts are now."""
        left = followed.layers_left
        with_placement = self._log.source.speaks_for_all
        if followed.progress.outcome == "finished":
            finished = Finished(moment, plan, followed.model.expert_bytes, seconds)
            self._log.tell(lambda: finished.events(with_placement))
        elif with_placement and followed.has_moved:
            self._log.tell(lambda: placement_events(moment, plan, left))

    def _tell(self, event: Event) -> None:
        self._log.tell(lambda: (event,))
