# SPDX-License-Identifier: Apache-2.0
"""All that the plugin keeps of one `EplbState`, found through one attribute."""

import functools
import operator
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from torch.distributed import ProcessGroup

from vllm_eplb_plugin.engine.boards import Boards
from vllm_eplb_plugin.engine.carrying import ModelCarrier
from vllm_eplb_plugin.engine.commands import make_commands
from vllm_eplb_plugin.engine.commit_checks import CommitChecks
from vllm_eplb_plugin.engine.committer import Committer
from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.peers import Peers
from vllm_eplb_plugin.engine.plan_events import placed_at_first
from vllm_eplb_plugin.engine.planner import Planner
from vllm_eplb_plugin.engine.power import Power
from vllm_eplb_plugin.engine.rank_status import tell_status
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.engine.serving_meetings import ServingMeetings
from vllm_eplb_plugin.engine.watch import Watch
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import Mode, StallBegan, StallEnded, TurnedOff
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.observe.status import Stall
from vllm_eplb_plugin.planning.asking import Asker
from vllm_eplb_plugin.settings import Settings

if TYPE_CHECKING:
    from vllm_eplb_plugin.engine.warm_start import WarmStart

_ATTRIBUTE = "eplb_session"


@dataclass
class ModelSession:
    """What the plugin keeps of one model."""

    moved: Moved
    committer: Committer
    checks: CommitChecks | None
    """None: nothing is compared after a commit."""
    carrier: ModelCarrier
    peers: Peers | None = None
    """None: weights get to other ranks by vLLM's communicator alone."""


class Session:
    """A session is the settings, events, models and rearrangements of one `EplbState`.

    The thread that runs the model owns it; vLLM's async worker only plans (`Rearrangements`).
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        """Open the events.

        Raises:
            OSError: They cannot be written.
        """
        self.settings = settings
        self.source = source
        self.policy: Any = None
        """What vLLM set as the policy, or its compiled form, or the planner; the guard asks it."""
        self.wanted: Any = None
        """What plans in its place while a placement is carried out at once; None: nothing does."""
        self.default_policy: Any = None
        """What plans as vLLM's default policy does."""
        self.log = EventLog(settings.events_dir, source, settings.metrics is not None)
        self.rearrangements = Rearrangements(self.log)
        planning = settings.planning
        self.planner = Planner(planning, self.rearrangements) if planning else None
        """None: vLLM's policy plans, from what vLLM counts."""
        self.warm_start: WarmStart | None = None
        self.boards = Boards()
        self.asker = Asker()
        self.commands = make_commands(self) if settings.control else None
        self.meetings = ServingMeetings()
        self.power = Power()
        self.watch: Watch | None = None
        """None: nothing was served yet."""
        self.transfer = ""
        """How weights get to other ranks."""
        self.status_is_lost = False
        """It could not be written, and that was told."""
        self.seconds = 0.0
        """Of the thread that runs the model, in EPLB."""
        self.asleep: Any = None
        """What was kept of a state whose memory is dropped (`engine.sleep`)."""
        self._models: dict[int, ModelSession] = {}

    def attach(self, state: Any) -> None:
        """Let the session be found from an `EplbState`."""
        setattr(state, _ATTRIBUTE, self)
        self.boards.state = state

    def add(
        self,
        model_state: Any,
        group: ProcessGroup,
        is_drafter: bool = False,
        meet_all: Callable[[], object] = lambda: None,
    ) -> ModelSession:
        """Add a model that has its first placement and its maps; all ranks call together.

        For ``meet_all`` see `commit_checks.gather_ledger`.
        """
        # vLLM adds a drafter before the model that is served.
        taken = {model.moved.id.model_index for model in self._models.values()}
        index = next(index for index in count(int(is_drafter)) if index not in taken)
        model_id = ModelId(model_state.model_name, index)
        weights = model_state.model.expert_weights
        moved = Moved(model_id, [sum(tensor[0].nbytes for tensor in layer) for layer in weights])
        checks = None
        if self.settings.check_weights:
            checks = CommitChecks(model_id, model_state, group, self.log, meet_all)
        carrier = ModelCarrier(self.boards, len(weights))
        model = ModelSession(moved, Committer(*_maps_of(model_state)), checks, carrier)
        self._models[id(model_state)] = model
        setattr(model_state, _ATTRIBUTE, self)
        self.tell_placement(model_state, group)
        return model

    def tell_placement(self, model_state: Any, group: ProcessGroup) -> None:
        """Tell a placement that no rearrangement has made."""
        follow, model = self.rearrangements, self._models[id(model_state)].moved
        if follow.recorder is not None:
            follow.recorder.placed(model, model_state, follow.step)
        if not (self.source.speaks_for_all and self.log.enabled):
            return
        p2l = model_state.physical_to_logical_map
        event = placed_at_first(model.id, follow.number, follow.step, group.size(), p2l)
        self.log.tell(lambda: (event,))

    def begin_watch(self) -> None:
        """Begin to look who stands still, now that the model serves."""
        self.watch = Watch(
            self.settings.watch,
            self.boards,
            self.power,
            step=lambda: self.rearrangements.step,
            told=self._tell_stall,
            looked=functools.partial(tell_status, self),
        )
        for model in self._models.values():
            model.carrier.watch = self.watch

    def _tell_stall(self, stall: Stall, begins: bool) -> None:
        event = StallBegan if begins else StallEnded
        told = (stall.rank, stall.thread, stall.phase, stall.layer, stall.seconds)
        self.log.tell(lambda: (event(*told),))

    def start(self, mode: Mode, model_states: Iterable[Any]) -> None:
        """Take notice that a rearrangement of these models begins, in vLLM's order."""
        models = [self._models[id(model_state)].moved for model_state in model_states]
        self.rearrangements.start(mode, models)
        for model in self._models.values():
            model.carrier.begin()

    def give_up(self, model_state: Any, why: str) -> None:
        """Take notice that nothing more of a model's rearrangement is committed, on any rank."""
        index = self._models[id(model_state)].moved.id.model_index
        self.rearrangements.give_up("failed", why, index)

    def asks_to_turn_off(self) -> bool:
        """Say whether this rank cannot go on, and the others can know why."""
        why, watch = self.power.asks_to_turn_off, self.watch
        can_know = watch is None or why is None or watch.is_known(why, self.power.asked_at)
        return why is not None and can_know

    def reasons(self) -> str:
        """Say which ranks give up what is under way, and why."""
        return self.power.asks_to_turn_off or "" if self.watch is None else self.watch.reasons()

    def turned_off(self) -> None:
        """Take notice that EPLB is off on all ranks since this step."""
        power, why = self.power, self.reasons()
        stuck = self.watch.some_worker_is_stuck if self.watch else power.has_stuck_worker
        self.rearrangements.give_up("stalled" if stuck else "failed", why)
        power.turn_off(why, is_stuck=stuck)
        self.log.tell(lambda: (TurnedOff(why),))

    def weights_replaced(self) -> None:
        """Take notice that somebody replaces weights who has asked for it."""
        for model in self._models.values():
            if model.checks is not None:
                model.checks.expect_other_weights()
            if model.peers is not None:
                model.peers.let_go()

    def look_before_moving(self, model_states: Iterable[Any], group: ProcessGroup) -> None:
        """Before experts are moved: see that later checks compare with the weights of now.

        All ranks call together, and have the same settings.
        """
        for model_state in model_states:
            model = self._models[id(model_state)]
            if model.checks is not None and not model.checks.renew(model_state, group):
                model.checks = None

    def renew_peers(self, group: ProcessGroup) -> None:
        """After a plan and before weights move: see that no rank reads memory that is another's.

        All ranks of the group call together, on the thread that plans.
        """
        for model in self._models.values():
            if model.peers is not None:
                model.peers.renew(group)

    def committer_of(self, model_state: Any) -> Committer:
        """Find the model's committer; make a new one if a tensor was replaced (elastic EP)."""
        model = self._models[id(model_state)]
        maps = _maps_of(model_state)
        if not all(map(operator.is_, model.committer.maps, maps)):
            model.committer = Committer(*maps)
        return model.committer

    def carrier_of(self, model_state: Any) -> ModelCarrier:
        """Find who answers for the model's transfers."""
        return self._models[id(model_state)].carrier

    def committed(
        self, model_state: Any, layers: range, but: Collection[int] = frozenset()
    ) -> None:
        """Take notice that layers of a model, but for some, just became visible."""
        model = self._models[id(model_state)]
        visible = [layer for layer in layers if layer not in but]
        self.rearrangements.committed(model.moved.id.model_index, visible)
        if model.checks is not None:
            model.checks.check(model_state, layers)


def session_of(owner: Any) -> Session:
    """Find the session of an `EplbState`, or of one of its `EplbModelState`."""
    session: Session = getattr(owner, _ATTRIBUTE)
    return session


def _maps_of(model_state: Any) -> tuple[Any, Any, Any]:
    return (
        model_state.physical_to_logical_map,
        model_state.logical_to_physical_map,
        model_state.logical_replica_count,
    )
