# SPDX-License-Identifier: Apache-2.0
"""Hands what rearrangements plan from, and what comes of them, to the recording.

Nothing is computed here: what is told is made on the thread that writes it, from tensors that no
longer change.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.parallel_state import get_ep_group, get_node_count

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine.followed import Followed, Moved
from vllm_eplb_plugin.engine.load_window import HostCopy
from vllm_eplb_plugin.engine.planner import Planner
from vllm_eplb_plugin.observe.delivery import Delivery
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.planning.guard import Plan
from vllm_eplb_plugin.recording.recording import Ended, InForce, Served, Shape, Window
from vllm_eplb_plugin.recording.recording_sink import Dropped, RecordingSink
from vllm_eplb_plugin.recording.writer import in_few_slices
from vllm_eplb_plugin.settings import Settings

_MOST_WAITING = 100
"""Of those that were told and not taken: DeepSeek-V3's windows have a megabyte each."""


@dataclass(frozen=True)
class Serving:
    """What all models of an `EplbState` have in common."""

    ranks: int
    """EP ranks."""
    nodes: int
    release: str
    """Of vLLM."""
    interval_steps: int
    window_steps: int


class LoadRecorder:
    """A recorder tells the recording of all models of one `EplbState`, on EP rank 0."""

    def __init__(self, sink: RecordingSink, serving: Serving, planner: Planner | None) -> None:
        """Start the thread that writes."""
        self._serving = serving
        self._planner = planner
        self._known: set[int] = set()

        def dropped(number: int, reason: str) -> Mapping[str, object]:
            return {"what": Dropped(number)}

        self._delivery = Delivery(
            sink, dropped, "windows of the recording", _MOST_WAITING, sink.idle
        )

    def close(self) -> None:
        """Write what waits; see `Delivery.close`."""
        self._delivery.close()

    def placed(self, model: Moved, model_state: Any, step: int) -> None:
        """Record a placement that no rearrangement has made; the first of a model begins it."""
        if model.id.model_index not in self._known:
            self._known.add(model.id.model_index)
            served = self._served(model, model_state)
            self._tell(model, lambda: served)
        now, placement = time.time(), model_state.physical_to_logical_map.cpu().clone()
        self._tell(model, lambda: InForce(step, now, placement.long().numpy()))

    def planned(self, followed: Followed, plan: Plan) -> None:
        """Record what a plan was made from, whatever becomes of it.

        A plan that asks for no load, because experts go back, is none.
        """
        if followed.trigger == "other":
            return
        index, step, now = followed.model.id.model_index, followed.progress.step, time.time()
        parts = None if self._planner is None else self._planner.parts(index)
        self._tell(followed.model, lambda: _window(step, now, plan, parts))

    def ended(self, followed: Followed) -> None:
        """Record how a rearrangement ended, and where experts are if some have moved."""
        plan, progress, now = followed.plan, followed.progress, time.time()
        left, outcome = followed.layers_left, str(progress.outcome)
        if plan is not None and followed.has_moved:
            self._tell(followed.model, lambda: _in_force(progress.step, now, plan, left))
        self._tell(followed.model, lambda: Ended(progress.step, now, outcome))

    def _tell(self, model: Moved, make: Callable[[], object]) -> None:
        index = model.id.model_index
        self._delivery.tell(lambda: ({"model_index": index, "what": make()},))

    def _served(self, model: Moved, model_state: Any) -> Served:
        vllm_model, serving, planner = model_state.model, self._serving, self._planner
        layers, slots = model_state.physical_to_logical_map.shape
        experts, groups = vllm_model.num_logical_experts, vllm_model.num_expert_groups or 1
        # As vLLM plans, where nodes or groups do not share evenly.
        nodes = serving.nodes if serving.ranks % serving.nodes == 0 else 1
        groups = groups if experts % groups == 0 else 1
        shape = Shape(layers, experts, slots, serving.ranks, nodes, groups)
        return Served(
            model.id.model,
            model.id.model_index,
            shape,
            tuple(model.expert_bytes),
            serving.release,
            serving.interval_steps,
            serving.window_steps,
            "" if planner is None else planner.options.model_dump_json(),
        )


def make_recorder(
    settings: Settings, source: Source, parallel_config: Any, planner: Planner | None
) -> LoadRecorder | None:
    """Make the recorder of this rank; None: nobody asked for it, or another rank has it.

    Raises:
        OSError: Its folder cannot be made, which ends the server before it serves.
    """
    options, eplb = settings.recording, parallel_config.eplb_config
    if options is None or not source.speaks_for_all:
        return None
    sink = RecordingSink(options.dir, options.max_bytes, source.global_rank)
    serving = Serving(
        get_ep_group().world_size,
        get_node_count(),
        installed_support().installed,
        eplb.step_interval,
        eplb.window_size,
    )
    return LoadRecorder(sink, serving, planner)


def _window(step: int, now: float, plan: Plan, parts: HostCopy | None) -> Window:
    load = plan.logical_load[None] if parts is None else parts.get()
    return Window(step, now, in_few_slices(load.long().numpy()))


def _in_force(step: int, now: float, plan: Plan, left: frozenset[int]) -> InForce:
    rows = [plan.old[n] if n in left else plan.new[n] for n in range(len(plan.new))]
    return InForce(step, now, torch.stack(rows).long().numpy())
