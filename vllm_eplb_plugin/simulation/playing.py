# SPDX-License-Identifier: Apache-2.0
"""One combination played over a recording: what would have been served, and what moved for it."""

import time
from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.planning.costs import costs_of
from vllm_eplb_plugin.planning.posing import Posing
from vllm_eplb_plugin.planning.problem import Floats, Integers, Problem
from vllm_eplb_plugin.planning.triggers import Rule, Watch, balancedness
from vllm_eplb_plugin.planning_settings import TriggerOptions
from vllm_eplb_plugin.recording.recording import Recording, Window
from vllm_eplb_plugin.simulation.candidate import NOTHING, Plan
from vllm_eplb_plugin.simulation.combination import Combination, cluster_of, first_placement
from vllm_eplb_plugin.simulation.errors import SimulationError


@dataclass(frozen=True)
class Rearrangement:
    """A rearrangement is one plan that came into force, and what it moved."""

    after: int
    """The number of the window that was served last before it, from 0."""
    triggered: bool
    """Whether `planning.trigger` asked for it, and not the interval."""
    experts: int
    """Experts that ranks receive from others, in all layers."""
    bytes: int
    """Their weights."""
    busiest_bytes: int
    """Those of the rank that receives most."""
    seconds: float
    """Processor time of the plan."""


@dataclass(frozen=True)
class Played:
    """What came of one combination."""

    combination: Combination
    balancedness: Floats
    """``[windows]``: of each window under the placement that was in force when it came, mean over
    max rank load, each summed over the layers; NaN where it has no load."""
    rearrangements: tuple[Rearrangement, ...]

    @property
    def served(self) -> Floats:
        """Of the windows that follow the first plan, which all combinations make at one time."""
        return self.balancedness[1:]


def play(recording: Recording, combination: Combination) -> Played:
    """Serve the windows one after another, and plan after the first and each ``interval``-th.

    A trigger looks once a window: what it asks for is planned from that window alone, and starts
    the interval anew. Nothing is planned after the last window, which no window follows.

    Raises:
        SimulationError: The policy or a step failed.
        ValueError: See `Combination.shape_of`.
    """
    shape = combination.shape_of(recording)
    options, plan = combination.candidate.options, combination.candidate.make()
    posing, cluster = Posing(options), cluster_of(recording, shape)
    placement, schedule = first_placement(recording, shape), _Schedule(combination)
    served = np.full(len(recording.windows), np.nan)
    done: list[Rearrangement] = []
    watch = Watch(_rule(options.trigger))
    for number, window in enumerate(recording.windows):
        load = window.load.astype(np.float64)
        value = balancedness(load, placement, shape.ranks)
        served[number] = np.nan if value is None else value
        reason = watch.look(load, placement, shape.ranks) if options.trigger else None
        if combination.candidate.name == NOTHING or number == len(recording.windows) - 1:
            continue
        first = schedule.plans_from(number, reason, watch.is_balanced)
        if first is None:
            continue
        if reason == "changed_load":
            posing.forget()
        history = _history(recording, first, number)
        problem = posing.pose_window(history, placement, cluster)
        placement, seconds = _planned(plan, problem, combination, window)
        watch.planned(history.sum(axis=0))
        done.append(_rearrangement(number, reason is not None, problem, placement, seconds))
    return Played(combination, served, tuple(done))


@dataclass
class _Schedule:
    """When is planned, and from which windows."""

    combination: Combination
    due: int = 0
    """The window after which the interval is over."""
    known: int = 0
    """The first window of the load as it is now."""

    def plans_from(self, number: int, reason: str | None, is_balanced: bool) -> int | None:
        """The first window that is planned from after one; None: it is not planned."""
        if reason is None and number < self.due:
            return None
        self.due = number + self.combination.interval
        if reason is not None:
            if reason == "changed_load":  # what came before says nothing of it
                self.known = number
            return number
        if is_balanced:
            return None
        return max(self.known, number + 1 - self.combination.window)


def _rule(trigger: TriggerOptions | None) -> Rule:
    return Rule() if trigger is None else Rule(trigger.below, trigger.changed)


def _history(recording: Recording, first: int, last: int) -> Floats:
    """``[time, layers, logical]``."""
    slices = [window.slices for window in recording.windows[first : last + 1]]
    return np.concatenate(slices).astype(np.float64)


def _planned(
    plan: Plan, problem: Problem, combination: Combination, window: Window
) -> tuple[Integers, float]:
    started = time.process_time()
    try:
        placement = plan(problem)
    except Exception as error:  # foreign code, which may fail in any way
        raise SimulationError(
            f"the policy {combination.candidate.name!r} failed on the window of step "
            f"{window.step}: {type(error).__name__}: {error}"
        ) from error
    return placement, time.process_time() - started


def _rearrangement(
    number: int, triggered: bool, problem: Problem, placement: Integers, seconds: float
) -> Rearrangement:
    costs = costs_of(problem, placement)
    received = costs.bytes_received(problem.bytes_of)
    return Rearrangement(
        number,
        triggered,
        int(costs.received.sum()),
        int(received.sum()),
        int(received.sum(axis=0).max()),
        seconds,
    )
