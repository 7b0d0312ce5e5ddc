# SPDX-License-Identifier: Apache-2.0
"""Overrides that let async mode hand over only layers that change, and the last one.

vLLM commits a layer in an engine step, every layer of the model, one after another. Only the commit
of the last one ends a rearrangement, in the same step on all ranks: so that one is always handed
over. Which others are is decided on the rows of all ranks, and so alike on all of them.
"""

import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vllm_eplb_plugin.engine.carrying import ModelCarrier
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.overrides.override import Override

_WORKER = "vllm.distributed.eplb.async_worker"
_FIXES = (
    "Every layer takes an engine step to be committed, also one whose placement stays: with one "
    "layer of 58 that changes, balance comes 58 steps late, and no other plan begins meanwhile."
)
_DELETE_WHEN = "vLLM hands over only layers that change."


@dataclass(frozen=True)
class Handover:
    """What the async worker hands over of one rearrangement of a model."""

    old: torch.Tensor
    """``[layers, physical]`` on the CPU: the placement in force, at least of layers to come."""
    new: torch.Tensor
    """``[layers, physical]`` on the CPU."""
    session: Session
    carrier: ModelCarrier
    stream: Any = None
    """On which the worker transfers; from 0.20 on."""

    def includes(self, layer: int) -> bool:
        """Say whether a layer is handed over: it changes, or it is the last."""
        if layer + 1 >= len(self.new):
            return True
        changes = not np.array_equal(self.old[layer].numpy(), self.new[layer].numpy())
        return changes and not self.carrier.given_up

    def layers_from(self, layer: int) -> Iterator[int]:
        """Find the layers to be handed over from this one on, in order."""
        return filter(self.includes, range(layer, len(self.new)))


_now: ContextVar[Handover | None] = ContextVar("handover", default=None)
"""Of a worker's thread; None: every layer is handed over."""


def _override_run(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_rebalance_experts(*args: Any, **kwargs: Any) -> Any:
        _now.set(None)
        # Names of parameters depend on the release.
        model_state, _, old, stream = (*args, *kwargs.values())
        session = session_of(model_state)
        session.boards.here.enter("loads")
        new = original(*args, **kwargs)
        _now.set(Handover(old, new, session, session.carrier_of(model_state), stream))
        return new

    return run_rebalance_experts


def _override_result(original: Callable[..., Any]) -> Callable[..., Any]:
    def hand_over(
        layer_idx: int,
        new_physical_to_logical_map: torch.Tensor,
        transfer_metadata: Any,
        consumed_event: Any,
    ) -> Any:
        now = _now.get()
        if now is None or now.includes(layer_idx):
            if now is not None:
                now.session.boards.here.enter("waiting for the model", layer_idx)
            return original(
                layer_idx, new_physical_to_logical_map, transfer_metadata, consumed_event
            )
        # The buffer holds nothing that the model's thread would have to take out first. On the
        # worker's own stream, so that the worker waits for nothing that the model has queued.
        consumed_event.record(now.stream)
        return None

    return hand_over


def begin_handover(model_state: Any, old: torch.Tensor) -> None:
    """Begin with the first layer to be handed over: 0.18 and 0.19.

    Args:
        model_state: An ``EplbModelState`` that has its new placement. The worker calls this under
            its ``buffer_lock``, before it looks which layer to transfer.
        old: ``[layers, physical]`` on the CPU, the placement in force.
    """
    session = session_of(model_state)
    new = model_state.new_physical_to_logical_map
    handover = Handover(old, new, session, session.carrier_of(model_state))
    model_state.eplb_handover = handover
    model_state.layer_to_transfer = next(handover.layers_from(0))


def pass_over_unchanged(model_state: Any, layer: int) -> None:
    """Go to just before the next layer to be handed over, since vLLM adds one: 0.18 and 0.19.

    The thread that runs the model calls this under the ``buffer_lock``, when it has committed the
    layer and before the worker is told so.
    """
    following = next(model_state.eplb_handover.layers_from(layer + 1), layer + 1)
    model_state.layer_to_transfer = following - 1


def _override_run_of_0_19(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_rebalance_experts(
        model_state: Any, eplb_state: Any, physical_to_logical_map_cpu: torch.Tensor
    ) -> None:
        original(model_state, eplb_state, physical_to_logical_map_cpu)
        begin_handover(model_state, physical_to_logical_map_cpu)

    return run_rebalance_experts


_RUN = "(model_state, eplb_state, physical_to_logical_map_cpu"

OVERRIDES = (
    Override(
        target=f"{_WORKER}:run_rebalance_experts",
        signature=f"{_RUN})",
        kind="replace",
        replace=_override_run_of_0_19,
        fixes=_FIXES,
        delete_when="vLLM 0.19 is no longer supported.",
        releases=">=0.19,<0.20",
    ),
    *(
        Override(
            target=f"{_WORKER}:run_rebalance_experts",
            signature=f"{_RUN}, {stream})",
            kind="hook",
            replace=_override_run,
            fixes="vLLM's worker does not tell what hands a layer over which layers change.",
            delete_when=_DELETE_WHEN,
            releases=releases,
        )
        for releases, stream in ((">=0.20,<0.31", "cuda_stream"), (">=0.31", "stream"))
    ),
    Override(
        target=f"{_WORKER}:AsyncEplbLayerResult",
        signature="(layer_idx, new_physical_to_logical_map, transfer_metadata, consumed_event)",
        kind="replace",
        replace=_override_result,
        fixes=_FIXES,
        delete_when=_DELETE_WHEN,
        releases=">=0.20",
    ),
)
