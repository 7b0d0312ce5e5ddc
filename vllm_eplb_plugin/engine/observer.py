# SPDX-License-Identifier: Apache-2.0
"""Follows one `EplbState` from load window to commit, and tells what happened."""

import logging
import time
from typing import Any

import torch
from torch.distributed import ProcessGroup, all_gather

from vllm_eplb_plugin.engine.plan_events import Finished, layers_committed
from vllm_eplb_plugin.observe.checks.router_maps import mismatched_experts
from vllm_eplb_plugin.observe.checks.weights import WeightLedger, digest_slots
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import (
    Event,
    MapsChecked,
    Mode,
    Placement,
    RearrangementStarted,
    WeightsChecked,
)
from vllm_eplb_plugin.planning.guard import Plan
from vllm_eplb_plugin.settings import Settings

logger = logging.getLogger("vllm.eplb_plugin")


class Observer:
    """Counts steps and rearrangements, writes events, checks weights.

    vLLM plans, moves and commits one model after another, so at any time at most one plan is
    being carried out, and a commit always belongs to the latest.
    """

    def __init__(self, settings: Settings, rank: int) -> None:
        self.settings = settings
        self.rank = rank
        self.step = 0
        self.rearrangement = 0
        self.rejections = 0
        self._log = EventLog(settings.events_dir, rank)
        self._mode: Mode = "sync"
        self._started = 0.0
        self._profiling = False
        self._plan: Plan | None = None
        self._ledgers: dict[str, WeightLedger] = {}
        self._expert_bytes: dict[str, list[int]] = {}

    def begin(self, mode: Mode, model_names: list[str]) -> None:
        """A rearrangement starts."""
        self.rearrangement += 1
        self._mode, self._started, self._plan = mode, time.monotonic(), None
        for name in model_names:
            self._tell(RearrangementStarted(name, *self._moment))

    def profile(self, active: bool) -> None:
        """Plans made while vLLM profiles memory are not carried out, and not told of."""
        self._profiling = active

    def planned(self, plan: Plan) -> None:
        """The policy's answer was checked on every rank; runs in the thread that plans."""
        if self._profiling:
            return
        self._plan = plan
        if plan.rejection is not None:
            self.rejections += 1
            logger.error(
                "EPLB placement rejected (%d so far), the old one stays: %s",
                self.rejections,
                plan.rejection,
            )

    def committed(self, model_state: Any, layers: range) -> None:
        """Layers of a model just became visible; the last one ends its rearrangement."""
        name, plan, moment = model_state.model_name, self._plan, self._moment
        if plan is not None:
            self._log.tell(lambda: layers_committed(name, moment, plan, layers))
        if self.settings.check_weights:
            for layer in layers:
                self._check_weights(model_state, layer)
                self._check_maps(model_state, layer)
        if plan is not None and layers[-1] == model_state.model.num_moe_layers - 1:
            seconds = time.monotonic() - self._started
            finished = Finished(name, moment, plan, self._expert_bytes[name], seconds)
            self._log.tell(lambda: finished.events(with_placement=self.rank == 0))

    def added(self, model_state: Any, group: ProcessGroup) -> None:
        """A model has its first placement; all ranks of the group call together."""
        if self.rank == 0 and self._log.enabled:
            placement = model_state.physical_to_logical_map.tolist()
            name, ranks = model_state.model_name, group.size()
            self._tell(Placement(name, 0, self.step, None, ranks, placement, None))
        self._expert_bytes[model_state.model_name] = [
            sum(tensor[0].nbytes for tensor in layer) for layer in model_state.model.expert_weights
        ]
        self.gather_weights(model_state, group)

    def gather_weights(self, model_state: Any, group: ProcessGroup) -> None:
        """Record every logical expert's digest; all ranks of the group call together."""
        if not self.settings.check_weights:
            return
        local = torch.stack([digest_slots(layer) for layer in model_state.model.expert_weights])
        ranks = [torch.empty_like(local) for _ in range(group.size())]
        all_gather(ranks, local, group=group)
        self._ledgers[model_state.model_name] = WeightLedger.from_slots(
            torch.cat(ranks, dim=1),
            model_state.physical_to_logical_map.cpu(),
            model_state.model.num_logical_experts,
        )

    @property
    def _moment(self) -> tuple[int, int, Mode]:
        return self.rearrangement, self.step, self._mode

    def _tell(self, event: Event) -> None:
        self._log.tell(lambda: (event,))

    def _check_weights(self, model_state: Any, layer: int) -> None:
        digests = digest_slots(model_state.model.expert_weights[layer])
        mismatched = self._ledgers[model_state.model_name].mismatched_slots(
            layer,
            model_state.physical_to_logical_map[layer].cpu(),
            digests,
            first_slot=self.rank * digests.shape[0],
        )
        if mismatched:
            logger.error(
                "EPLB weight check failed: layer %d, slots %s do not hold the weights of the "
                "logical experts that the committed map names. Answers are wrong from here on.",
                layer,
                mismatched,
            )
        self._tell(WeightsChecked(model_state.model_name, layer, digests.shape[0], mismatched))

    def _check_maps(self, model_state: Any, layer: int) -> None:
        l2p = model_state.logical_to_physical_map[layer].cpu()
        mismatched = mismatched_experts(
            model_state.physical_to_logical_map[layer].cpu(),
            l2p,
            model_state.logical_replica_count[layer].cpu(),
        )
        if mismatched:
            logger.error(
                "EPLB map check failed: layer %d, the router does not find the replicas of logical "
                "experts %s where the committed map has them.",
                layer,
                mismatched,
            )
        self._tell(MapsChecked(model_state.model_name, layer, l2p.shape[0], mismatched))
