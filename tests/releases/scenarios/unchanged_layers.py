# SPDX-License-Identifier: Apache-2.0
"""Rearrangements in which some layers change, and what the others cost."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from vllm.distributed.eplb import rebalance_execute

from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import (
    INTERVAL,
    LOGICAL,
    Job,
    Report,
    new_state,
    record_load,
    wait_for_worker,
)
from vllm_eplb_plugin.transfer import peer_layer

_UNTOUCHED = 77


@dataclass
class Cost:
    """What one rearrangement cost this rank, over all models."""

    steps: int = 0
    """Engine steps after the one that began it."""
    committed: list[list[int]] = field(default_factory=list)
    """Pairs of a model's number of layers and a layer that became visible."""
    transfers: int = 0
    """How often vLLM looked up who sends to whom: twice in a layer of which the rank receives."""
    pulled: int = 0
    """Layers in which the rank looked up what to pull from others' memory."""
    executed: int = 0
    """Batches of sends; from 0.20 on."""
    buffer_written: bool = False
    """Of those that vLLM keeps: before 0.23, sync mode makes new ones."""


class Costs:
    """Counts them while a state is stepped."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.of_each: list[Cost] = []

    @property
    def now(self) -> Cost:
        return self.of_each[-1]

    def begin(self) -> None:
        self.of_each.append(Cost())
        for buffer in self._buffers():
            buffer.fill_(_UNTOUCHED)

    def look(self) -> None:
        if not self.of_each:
            return
        self.now.buffer_written |= any(bool((b != _UNTOUCHED).any()) for b in self._buffers())

    def count(self) -> None:
        """Count from now on what vLLM and the plugin do."""
        from vllm_eplb_plugin.engine.session import Session

        committed = Session.committed

        def note(session: Session, model_state: Any, layers: range, *others: Any) -> None:
            total = model_state.model.num_moe_layers
            self.now.committed += [[total, layer] for layer in layers]
            committed(session, model_state, layers, *others)

        Session.committed = note  # type: ignore[method-assign]
        self._count_calls(rebalance_execute, "get_ep_ranks_with_experts_batch", "transfers")
        self._count_calls(peer_layer, "plan_pulls", "pulled")
        for model_state in self.state.model_states.values():
            if (communicator := getattr(model_state, "communicator", None)) is not None:
                self._count_calls(communicator, "execute", "executed")

    def _count_calls(self, owner: Any, name: str, of: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            setattr(self.now, of, getattr(self.now, of) + 1)
            return original(*args, **kwargs)

        setattr(owner, name, call)

    def _buffers(self) -> list[torch.Tensor]:
        return [b for m in self.state.model_states.values() for b in m.expert_buffer]


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Carry out rearrangements, one after another.

    ``job.arguments``: ``changes``, for each rearrangement the layers in which every slot gets
    another expert and every rank receives one; ``layers``, of each model; ``drain``, the number of
    the rearrangement that vLLM throws away after one step.
    """
    models = [
        TinyModel(rank, 2, layers, LOGICAL, job.redundant, tag)
        for tag, layers in enumerate(job.arguments["layers"])
    ]
    models[0].is_drafter = len(models) > 1
    state = new_state(models, config)
    state.start_async_loop()
    changes: list[list[int]] = job.arguments["changes"]
    rearrangements = state.eplb_session.rearrangements

    def replace(*arguments: Any) -> torch.Tensor:
        new: torch.Tensor = arguments[-1].clone()
        layers = [layer for layer in changes[rearrangements.number - 1] if layer < len(new)]
        new[layers] = (new[layers] + 1) % LOGICAL
        return new

    state.policy = SimpleNamespace(rebalance_experts=replace)
    report, costs = Report(job, rank, state), Costs(state)
    costs.count()
    for step in range(job.steps):
        was_moving = moving(state)
        if rearrangements.number == len(changes) and not was_moving:
            break
        record_load(state, step)
        if not was_moving and state.expert_rearrangement_step + 1 >= INTERVAL:
            costs.begin()
        state.step()
        if was_moving:
            costs.now.steps += 1
        report.look()
        costs.look()
        wait_for_worker(state)
        if was_moving and job.arguments.get("drain") == rearrangements.number and moving(state):
            state.drain_async()
    return {**report.as_dict(), "costs": [asdict(cost) for cost in costs.of_each]}


def moving(state: Any) -> bool:
    return any(model_state.rebalanced for model_state in state.model_states.values())
