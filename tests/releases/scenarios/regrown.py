# SPDX-License-Identifier: Apache-2.0
"""A rank that elastic EP keeps makes its list of expert weights anew, as those that join do not."""

from typing import Any

import torch

from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import (
    LOGICAL,
    Job,
    Report,
    grown_state,
    record_load,
    wait_for_worker,
)


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Rank 0 serves already, rank 1 joins; ``job.rearrangements`` of them."""
    model = TinyModel(rank, job.ranks, 3, LOGICAL, job.redundant, 0)
    state = grown_state(model, rank, config)
    if rank == 0:
        reconfigure(state, model)
    state.start_async_loop()
    report = Report(job, rank, state)
    report.look()
    for step in range(job.steps):
        record_load(state, step)
        state.step()
        report.look()
        if len(report.placements) >= job.rearrangements:
            break
        if report.placements:
            state.num_valid_physical_experts = model.num_physical_experts
        wait_for_worker(state)
    pulled = [layer.peers is not None for layer in model.expert_weights]
    return {**report.as_dict(), "pulled": pulled}


def reconfigure(state: Any, model: TinyModel) -> None:
    """As vLLM's ``ElasticEPScalingExecutor`` (``elastic_execute.py``), of what it does there."""
    (model_state,) = state.model_states.values()
    load_pass: torch.Tensor = getattr(
        model_state, "expert_load_pass", getattr(model_state, "expert_load_pass_buffer", None)
    )
    maps = model_state.logical_to_physical_map, model_state.logical_replica_count
    model.expert_weights = []
    model.set_eplb_state(load_pass, *maps)
