# SPDX-License-Identifier: Apache-2.0
"""Plans by the setting `planning`, where vLLM asks its policy, from loads of its own counting."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed import ProcessGroup, all_reduce

from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.load_window import HostCopy, LoadWindow, span_of
from vllm_eplb_plugin.engine.looks import Looks
from vllm_eplb_plugin.engine.plan_events import Origin
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.events import Mode
from vllm_eplb_plugin.planning.policies.default import Default
from vllm_eplb_plugin.planning.posing import Cluster, Posing
from vllm_eplb_plugin.planning.problem import Floats, Problem
from vllm_eplb_plugin.planning.registry import make_pipeline
from vllm_eplb_plugin.planning.triggers import Reason
from vllm_eplb_plugin.planning_settings import LimitOptions, PlanningOptions

_REPEAT_THEMSELVES = ("default", "incremental")

_NEWEST_PARTS = 2
"""What a trigger plans from: the part in which it saw a reason, and what came since."""


@dataclass
class _Counted:
    """What is counted and remembered of one model."""

    window: LoadWindow
    posing: Posing
    history: HostCopy | None = None
    """``[parts, layers, logical]`` of all ranks: what the last plan was made from."""
    unwatched: HostCopy | None = None
    """Their sum ``[layers, logical]``; None: a look knows of that plan."""

    def start_anew(self) -> None:
        self.window.clear()
        self.history = self.unwatched = None
        self.posing.forget()


class Planner:
    """A planner stands where vLLM has its policy (`EplbState.policy`), for one `EplbState`."""

    def __init__(self, options: PlanningOptions, rearrangements: Rearrangements) -> None:
        """Make the pipeline, which compiles what it is made of.

        Raises:
            UnknownPolicyError: A policy or step cannot be made.
        """
        self.options = options
        self.pipeline = make_pipeline(options)
        self.vllm_policy: Any = None
        """See `stand_for`."""
        self.looks = None if options.trigger is None else Looks(options.trigger)
        self.takes_loads = False
        """Whether a rearrangement is about to add up loads."""
        self.given: torch.Tensor | None = None
        """``[layers, logical]`` tokens that are planned from instead of what was counted, when
        nothing is served yet: limits on what is moved do not hold then."""
        self._rearrangements = rearrangements
        self._counted: dict[int, _Counted] = {}
        self._posing_uncounted = Posing(options.model_copy(update={"smoothing": None}))
        """Of models whose load vLLM counts: what it plans from is not smoothed."""

    def stand_for(self, vllm_policy: Any) -> None:
        """Stand for this policy of vLLM's, which is what `default` means.

        It plans where nobody follows the result, as when memory is profiled, and where elastic EP
        changes the number of slots.
        """
        self.vllm_policy = vllm_policy
        if isinstance(self.pipeline.policy, Default):
            self.pipeline = replace(self.pipeline, policy=Default(vllm_policy))

    def count(
        self, model_index: int, model_state: Any, window_steps: int, began: Floats | None = None
    ) -> None:
        """Start to count the load of a model, whose plans vLLM's count makes else.

        For ``began``, if experts were placed by a recorded load, see `Watch.began`.
        """
        trigger = self.options.trigger
        model, device = model_state.model, model_state.expert_load_pass.device
        span = span_of(window_steps, None if trigger is None else trigger.check_steps)
        window = LoadWindow(span, model.num_moe_layers, model.num_logical_experts, device)
        self._counted[model_index] = _Counted(window, Posing(self.options))
        if self.looks is not None and began is not None:
            self.looks.watch(model_index).began(began)

    @property
    def description(self) -> str:
        """What plans, in a few words."""
        names = [self.options.policy.name, *(step.name for step in self.options.steps)]
        trigger = self.options.trigger
        when = "" if trigger is None else f", looking every {trigger.check_steps} steps"
        return ", then ".join(names) + when

    @property
    def repeats_itself(self) -> bool:
        """Whether a second plan from the same load and from the first one's placement is the same:
        nothing holds moves back that would come then, and no load is added to earlier ones."""
        options = self.options
        is_ours = options.policy.name in _REPEAT_THEMSELVES and not options.steps
        return is_ours and options.limits == LimitOptions() and options.smoothing is None

    @contextmanager
    def rearranging(self) -> Iterator[None]:
        """Let loads that vLLM adds up meanwhile be the planner's, if it has any."""
        self.takes_loads = self.counts or self.given is not None
        try:
            yield
        finally:
            self.takes_loads = False

    @property
    def counts(self) -> bool:
        """Whether loads are counted here."""
        return bool(self._counted)

    def start_anew(self) -> None:
        """Forget what was counted, on all ranks together."""
        for counted in self._counted.values():
            counted.start_anew()
        if self.looks is not None:
            self.looks.start_anew()

    def step(self, step: int, model_states: Iterable[Any], is_counted: bool) -> None:
        """Count a step that the models have made; see `LoadWindow.step`."""
        for counted, state in zip(self._counted.values(), model_states, strict=True):
            load = state.expert_load_pass if is_counted else None
            counted.window.step(step, load, state.physical_to_logical_map)

    def look(self, step: int, model_states: Iterable[Any], group: ProcessGroup) -> Reason | None:
        """Look at what is served, if that is due; return why to plan now, if there is a reason."""
        if self.looks is None:
            return None
        windows = [
            (index, counted.window, state.physical_to_logical_map)
            for (index, counted), state in zip(self._counted.items(), model_states, strict=True)
        ]
        self.looks.start(step, windows, group)
        if not self.looks.are_due(step):
            return None
        for index, counted in self._counted.items():
            if counted.unwatched is not None:
                self.looks.watch(index).planned(counted.unwatched.get().double().numpy())
                counted.unwatched = None
        return self.looks.decide(step, group.size())

    def take_loads(self, group: ProcessGroup) -> list[torch.Tensor]:
        """Take what the rearrangement that has started is planned from; all ranks call together.

        Returns:
            For each model ``[layers, logical]``, tokens over all ranks: what vLLM maps from its
            window of physical loads.
        """
        if self.given is not None:
            return [self.given]
        trigger = self._rearrangements.trigger
        last = _NEWEST_PARTS if trigger in ("balancedness", "changed_load") else None
        only_plan, sums = self._rearrangements.only_plans(), []
        for counted in self._counted.values():
            window = counted.window.parts(last)
            all_reduce(window, group=group)
            sums.append(window.sum(dim=0))
            counted.history = HostCopy(window)
            if not only_plan:  # the load that experts are placed for stays the one before
                counted.unwatched = HostCopy(sums[-1])
            if trigger == "changed_load":
                counted.posing.forget()
        if self.looks is not None:
            self.looks.rearranging(self._rearrangements.step)
        return sums

    def parts(self, model_index: int) -> HostCopy | None:
        """Find the parts of the window that the last plan of a model was made from, the newest
        last, ``[parts, layers, logical]``; None: it is not counted here."""
        counted = self._counted.get(model_index)
        return None if counted is None else counted.history

    def ask(self, mode: Mode) -> "Asked":
        """Ask for a placement of the model that is planned next in a mode."""
        return Asked(self, self._rearrangements.to_plan(mode))

    def problem(
        self,
        model: Moved,
        weight: torch.Tensor,
        old: torch.Tensor,
        nodes: int,
        groups: int,
        ranks: int,
    ) -> Problem:
        """Make the problem of one model; for the arguments see `planning.guard.Policy`."""
        counted = self._counted.get(model.id.model_index)
        posing = self._posing_uncounted if counted is None else counted.posing
        parts = None if counted is None else counted.history
        return posing.pose(
            weight.cpu().double().numpy(),
            old.cpu().long().numpy(),
            Cluster(ranks, nodes, groups, model.expert_bytes),
            None if parts is None else parts.get().double().numpy(),
        )


@dataclass
class Asked:
    """What vLLM asks for a placement, once."""

    planner: Planner
    model: Moved | None
    """The model that is planned; None: nobody follows the result."""
    origin: Origin | None = None
    """Of the plan, once it is made; None: it is the policy's of vLLM."""

    def rebalance_experts(
        self,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: torch.Tensor | None = None,
    ) -> Any:
        """Plan, as vLLM's policies do; see `planning.guard.GuardedPolicy.rebalance_experts`."""
        model, old = self.model, old_global_expert_indices
        if model is None or old is None or old.shape[1] != num_replicas or bool((old < 0).any()):
            return self.planner.vllm_policy.rebalance_experts(
                weight, num_replicas, num_groups, num_nodes, num_ranks, old
            )
        problem = self.planner.problem(model, weight, old, num_nodes, num_groups, num_ranks)
        proposal = self.planner.pipeline(problem)
        options = self.planner.options
        names = tuple(step.name for step in options.steps)
        self.origin = Origin(options.policy.name, names, torch.from_numpy(proposal.wanted))
        is_free = self.planner.given is not None
        return torch.from_numpy(proposal.wanted if is_free else proposal.placement)
