# SPDX-License-Identifier: Apache-2.0
"""The setting `planning.initial`: experts are placed by what was recorded before a model serves.

vLLM adds a model when its weights are loaded, and profiles memory and captures graphs later.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed import barrier

from vllm_eplb_plugin.engine.model_layers import LOADING_SECONDS
from vllm_eplb_plugin.engine.rendezvous import meet
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.engine.wanted_placement import rearrange_at_once, rearrange_to
from vllm_eplb_plugin.observe.identity import ModelId
from vllm_eplb_plugin.placement.maps import InvalidPlacementError, validate_placement
from vllm_eplb_plugin.planning.problem import Floats
from vllm_eplb_plugin.planning_settings import PlanningOptions
from vllm_eplb_plugin.recording.initial import (
    Initial,
    InitialError,
    initial_for,
    initials_of,
    require_fit,
)
from vllm_eplb_plugin.recording.sources import read_any

logger = logging.getLogger("vllm.eplb_plugin")


class WarmStartError(RuntimeError):
    """The models cannot begin where they are to begin; every rank says so."""

    def __init__(self, path: str, why: object) -> None:
        super().__init__(f"planning.initial={path!r} is refused: {why}")


class WarmStart:
    """A warm start is what the models of one `EplbState` begin with."""

    def __init__(self, planning: PlanningOptions, ranks: Any) -> None:
        """Read on EP rank 0 what was recorded, and tell the others; all EP ranks come.

        Args:
            planning: With ``initial``.
            ranks: vLLM's group of EP ranks.

        Raises:
            WarmStartError: It cannot be read, or has nothing to begin with.
            RanksMissingError: A rank did not come.
        """
        assert planning.initial is not None
        self.options = planning.initial
        self.stays = planning.rearrange == "never"
        """Whether nothing moves afterwards."""
        self._ranks = ranks
        self._placements: list[torch.Tensor] = []
        """Of each model that was added, ``[layers, slots]`` on the CPU."""
        self._is_left = False
        read = self._read() if ranks.rank_in_group == 0 else None
        told = meet(ranks, "planning.initial", read, LOADING_SECONDS)[0].message
        if isinstance(told, str):
            raise WarmStartError(self.options.path, told)
        self._initials = [Initial.of_json(one) for one in told]

    def _read(self) -> list[dict[str, Any]] | str:
        """What was recorded of each model; a text: why there is nothing."""
        try:
            recordings = read_any(Path(self.options.path))
            initials = initials_of(recordings, self.options.windows)
        except (OSError, ValueError) as error:
            return str(error)
        return [initial.to_json() for initial in initials]

    def begin(self, state: Any, model_state: Any, model: ModelId) -> Floats | None:
        """Place the experts of a model that was just added; all EP ranks call together.

        Returns:
            The recorded load that was planned from; None: nothing was planned.

        Raises:
            WarmStartError: What was recorded is of another model or shape, or the placement is
                invalid, was not agreed on, or did not arrive.
            RanksMissingError: A rank did not come.
        """
        try:
            initial = self._initial_for(model_state, model)
        except (InitialError, InvalidPlacementError) as error:
            raise WarmStartError(self.options.path, error) from error
        session = session_of(state)
        if initial is not None:
            meet(self._ranks, "experts of planning.initial", None, LOADING_SECONDS)
            if not hasattr(model_state, "communicator"):
                # Before 0.20 weights go over the world, in which NCCL wants every rank in the first
                # transfer; later ones come after a barrier of vLLM's profiling.
                barrier()
            with _alone(state, model_state):
                self._place(state, session, initial)
        if session.source.speaks_for_all:
            logger.info("EPLB: experts of %s begin %s.", model.model, self._describe(initial))
        self._placements.append(model_state.physical_to_logical_map.cpu().long().clone())
        load = None if initial is None else initial.load
        return None if load is None else load.astype(np.float64)

    def _initial_for(self, model_state: Any, model: ModelId) -> Initial | None:
        options, served = self.options, model_state.model
        initial = initial_for(self._initials, model.model, model.model_index, options.any_name)
        if initial is None:
            return None
        layers, slots = served.num_moe_layers, served.num_physical_experts
        require_fit(initial, layers, served.num_logical_experts, slots, self._ranks.world_size)
        if (placement := initial.placement) is not None:
            shape = (layers, slots)
            validate_placement(torch.from_numpy(placement), shape, served.num_logical_experts)
        return initial

    def _place(self, state: Any, session: Session, initial: Initial) -> None:
        before, planner = Counter(session.rearrangements.outcomes), session.planner
        assert planner is not None
        load, placement = initial.load, initial.placement
        if placement is not None:
            rearrange_to(state, [torch.from_numpy(placement)])
        elif load is not None:
            planner.given = torch.from_numpy(load).to(state.device)
            try:
                rearrange_at_once(state, planner)
            finally:
                planner.given = None
        for outcome in session.rearrangements.outcomes - before:
            if outcome not in ("finished", "skipped"):
                why = f"the rearrangement to it was {outcome}, the log says why"
                raise WarmStartError(self.options.path, why)

    def _describe(self, initial: Initial | None) -> str:
        path = self.options.path
        if initial is None:
            return f"in vLLM's first placement: {path} has nothing of this drafter"
        if initial.windows:
            return f"as planned from {initial.windows} load windows of {path}"
        return f"in the placement of {path}"

    def left(self) -> None:
        """Take notice that experts went back to vLLM's first placement, on all ranks."""
        self._is_left = self.stays

    def return_to_it(self, state: Any) -> None:
        """Before a step that all ranks make: place the experts again if they were put back."""
        if self._is_left:
            self._is_left = False
            with torch.inference_mode():
                rearrange_to(state, self._placements)


@contextmanager
def _alone(state: Any, model_state: Any) -> Iterator[None]:
    """Let vLLM rearrange one model only."""
    models = state.model_states
    state.model_states = {model_state.model_name: model_state}
    try:
        yield
    finally:
        state.model_states = models
