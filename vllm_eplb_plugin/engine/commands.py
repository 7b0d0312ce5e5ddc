# SPDX-License-Identifier: Apache-2.0
"""Operators' commands: every rank carries out the same one in the same engine step.

A command reaches each engine at another moment, and one that stands still not at all. So every so
many steps ranks ask each other for the newest that any of them knows, and read the answer a fixed
number of steps later.
"""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import ReduceOp, Work, all_reduce
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.commands import (
    STEPS_BETWEEN,
    STEPS_LATER,
    Command,
    CommandStatus,
    newest,
    note,
)
from vllm_eplb_plugin.observe.events import Trigger
from vllm_eplb_plugin.observe.phases import ThreadBoard

if TYPE_CHECKING:
    from vllm_eplb_plugin.engine.session import Session

logger = logging.getLogger("vllm.eplb_plugin")

_KEPT = 8
"""Commands whose outcome can be asked for."""


@dataclass(frozen=True)
class _Asked:
    work: Work | None
    number: torch.Tensor
    due: int


@dataclass
class _Carried:
    """A command that was carried out."""

    command: Command
    step: int
    models: int = 0
    """Of which it awaits an outcome."""
    rearrangement: int | None = None
    outcomes: list[tuple[str, object]] = field(default_factory=list)
    """Each with its reason, which may take long to say."""

    def status(self) -> CommandStatus:
        ended = len(self.outcomes) >= self.models
        return CommandStatus(
            self.command.number,
            self.command.action,
            self.step,
            self.rearrangement,
            ended,
            [f"{what}: {reason}" if reason else what for what, reason in list(self.outcomes)],
        )


def make_commands(session: "Session") -> "Commands":
    """Make those of a session, which has its planner, boards and rearrangements."""
    counts, speaks = session.planner is not None, session.source.speaks_for_all
    return Commands(session.rearrangements, session.boards.model, counts, speaks)


class Commands:
    """The commands of one `EplbState`. The thread that runs the model owns them; any may read."""

    def __init__(
        self,
        rearrangements: Rearrangements,
        board: ThreadBoard,
        counts_by_itself: bool,
        speaks: bool,
    ) -> None:
        """Follow the outcomes of rearrangements.

        Args:
            rearrangements: Of the state.
            board: Where the thread that runs the model says what it does.
            counts_by_itself: Whether loads are credited to experts in each step, and not to the
                slots of the placement in force when a plan is made.
            speaks: Whether this rank writes into the log what was carried out.
        """
        self.paused = False
        self._rearrangements, self._board, self._speaks = rearrangements, board, speaks
        self._counts_by_itself = counts_by_itself
        self._asked: _Asked | None = None
        self._carried_out = 0
        self._wanted: _Carried | None = None
        self._counter: int | None = None
        """vLLM's count of steps before a plan that moves nothing."""
        self._carried: tuple[_Carried, ...] = ()
        rearrangements.tell_end = self._ended

    def status(self) -> list[CommandStatus]:
        """Tell the last commands, the newest last; any thread may ask."""
        return [carried.status() for carried in self._carried]

    def before_step(self, state: Any, trigger: Trigger) -> Trigger:
        """Before a step of vLLM's, on all ranks alike: ask, hear, and act.

        Args:
            state: An `EplbState` whose step this is; not one that carries a rearrangement to its
                end (`engine.first_placement`).
            trigger: Why vLLM rearranges in this step, if it does.

        Returns:
            The same, or ``operator``.
        """
        step = self._rearrangements.step
        if self._asked is not None and step >= self._asked.due:
            self._read(self._asked)
        if step % STEPS_BETWEEN == 0:
            self._ask(step)
        if self._wanted is not None or self.paused or self._counter is not None:
            return self._act(state, trigger)
        return trigger

    def _ask(self, step: int) -> None:
        number = torch.tensor([newest()])
        work = all_reduce(number, ReduceOp.MAX, get_ep_group().cpu_group, async_op=True)
        self._asked = _Asked(work, number, step + STEPS_LATER)

    def _read(self, asked: _Asked) -> None:
        """Wait, within the group's time limit; all have made the forward passes in between."""
        self._asked = None
        if asked.work is not None:
            with self._board.during("agreeing"):
                asked.work.wait()
        number = int(asked.number)
        if number > self._carried_out:
            self._carried_out = number
            note(number)
            self._carry_out(Command.of(number))

    def _carry_out(self, command: Command) -> None:
        carried = _Carried(command, self._rearrangements.step)
        if command.action == "resume":
            self.paused = False
        else:
            self._drop_wanted(command)
        if command.action == "pause":
            self.paused = True
        elif command.action != "resume":
            carried.models, self._wanted = 1, carried
        self._carried = (*self._carried[1 - _KEPT :], carried)
        if self._speaks:
            logger.info("EPLB: an operator's %s, in step %d.", command.action, carried.step)

    def _drop_wanted(self, command: Command) -> None:
        if self._wanted is not None:
            self._wanted.outcomes.append(("not begun", f"{command.action} came before"))
            self._wanted = None

    def _act(self, state: Any, trigger: Trigger) -> Trigger:
        if self._counter is not None:  # as if the plan alone had not been
            state.expert_rearrangement_step += self._counter
            self._counter = None
        last = state.expert_rearrangement_step_interval - 1
        is_due = state.expert_rearrangement_step >= last
        if self._wanted is not None and self._may_begin(state, is_due):
            self._begin(state, self._wanted, last)
            return "operator"
        if self.paused and is_due:
            state.expert_rearrangement_step = -1  # an interval begins
        return trigger

    def _may_begin(self, state: Any, is_due: bool) -> bool:
        """Not while one is under way, nor before loads are those of the placement in force,
        unless vLLM would begin one, too."""
        if any(model_state.rebalanced for model_state in state.model_states.values()):
            return False
        steps = self._rearrangements.step - self._rearrangements.committed_in
        return is_due or self._counts_by_itself or steps > state.expert_load_window_size

    def _begin(self, state: Any, carried: _Carried, last: int) -> None:
        """Let vLLM rearrange in this step, as at the end of an interval."""
        self._wanted = None
        carried.models = len(state.model_states)
        carried.rearrangement = self._rearrangements.number + 1
        if carried.command.action == "plan":
            self._rearrangements.only_plan = True
            self._counter = max(state.expert_rearrangement_step, 0) + 1
        state.expert_rearrangement_step = last

    def _ended(self, rearrangement: int, model: str, outcome: str, reason: object) -> None:
        """Take notice of an outcome, on whichever thread it came."""
        for carried in self._carried:
            if carried.rearrangement == rearrangement:
                carried.outcomes.append((f"{model}: {outcome}", reason))
