# SPDX-License-Identifier: Apache-2.0
"""A model whose MoE layers are as the job says: rearrange its experts, and look after every step.

Arguments: ``layers``, of each the dtype and shape of its tensors; ``fewer_slots``, in the last
layer; ``forget_layer``, its weights are not told; ``lazy``, weights come from generators;
``unfilled``, the tensor that the loader does not fill in redundant slots, -1: all; ``dummy``, the
weights are said to be dummies; ``drafter``, the layers of a second model; ``profile``, vLLM
profiles its memory first; ``refused``, each rank is to fail, and reports its error; ``joins``,
elastic EP adds the second rank.
"""

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.releases.tiny_model import TensorSpec, TinyModel, slot_bytes
from tests.releases.two_ranks import (
    LOGICAL,
    Job,
    Report,
    grown_state,
    new_state,
    record_load,
    wait_for_worker,
)


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Add the model, and step until enough rearrangements were committed."""
    told = job.arguments
    models = [make(rank, job, specs, tag) for tag, specs in enumerate(all_layers(told))]
    models[0].is_drafter = len(models) > 1
    if told.get("dummy"):
        config.load_config.load_format = "dummy"
    if told.get("joins"):
        return {"added": rank == 1 and join(models[0], rank, config)}
    if told.get("refused"):
        with pytest.raises(RuntimeError) as raised:
            new_state(models, config)
        dist.barrier()  # the first rank keeps the store in which the other may still read
        return {"error": f"{raised.typename}: {raised.value}"}
    state = new_state(models, config)
    state.start_async_loop()
    if told.get("profile"):
        state.step(is_profile=True)
    report = Report(job, rank, state)
    report.look()
    for step in range(job.steps):
        record_load(state, step)
        state.step()
        report.look()
        if len(report.placements) >= job.rearrangements:
            break
        wait_for_worker(state)
    sizes = [model_state.model.expert_weights for model_state in state.model_states.values()]
    return report.as_dict() | {
        "dtypes": sorted(
            {str(tensor.dtype) for model in sizes for layer in model for tensor in layer}
        )
    }


def join(model: TinyModel, rank: int, config: Any) -> bool:
    """As a process does that elastic EP starts: nobody else adds a model meanwhile."""
    os.environ["VLLM_ELASTIC_EP_SCALE_UP_LAUNCH"] = "1"
    model.forget_redundant(rank)
    state = grown_state(model, rank, config)
    return bool(state.model_states)


def all_layers(told: dict[str, Any]) -> list[list[list[TensorSpec]]]:
    """Of the drafter, which vLLM adds first, and of the model."""
    return [specs for specs in (told.get("drafter"), told["layers"]) if specs is not None]


def make(rank: int, job: Job, specs: Sequence[Sequence[TensorSpec]], tag: int) -> TinyModel:
    told = job.arguments
    model = TinyModel(rank, 2, len(specs), LOGICAL, job.redundant, tag, specs)
    for layer in model.moe_layers:
        layer.lazy = told.get("lazy", False)
    last = model.moe_layers[-1]
    if fewer := told.get("fewer_slots"):
        last.weights = tuple(tensor[:-fewer] for tensor in last.weights)
    if told.get("forget_layer"):
        forget_last_layer(model)
    if (unfilled := told.get("unfilled")) is not None:
        leave_unfilled(model, rank, unfilled)
    return model


def forget_last_layer(model: TinyModel) -> None:
    """As a model that tells the weights of too few layers."""
    original = model.set_eplb_state

    def set_eplb_state(*tensors: torch.Tensor) -> None:
        original(*tensors)
        model.expert_weights.pop()

    model.set_eplb_state = set_eplb_state  # type: ignore[method-assign]


def leave_unfilled(model: TinyModel, rank: int, index: int) -> None:
    """As a loader that knows of no redundant slots leaves them."""
    redundant = max(0, LOGICAL - rank * model.num_local_physical_experts)
    for layer in model.moe_layers:
        tensors: Sequence[torch.Tensor] = layer.weights if index < 0 else [layer.weights[index]]
        for tensor in tensors:
            slot_bytes(tensor)[redundant:] = 0
