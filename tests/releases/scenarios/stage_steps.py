# SPDX-License-Identifier: Apache-2.0
"""Both EP ranks of one pipeline stage, which serve or run dummy batches in model runner V1."""

from typing import Any

import torch

from tests.releases.runner_v1 import bare_runner, no_token, one_token
from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, new_state, record_load


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Serve, or idle along, as ``arguments`` say.

    ``pools``: the stage is the last, of a model that pools; ``idle``: this rank has requests in
    every third step only; ``more_layers``: how many MoE layers other stages have.
    """
    from vllm.sequence import IntermediateTensors
    from vllm.v1.worker import gpu_model_runner  # noqa: F401 - before the state, as in a worker

    pools = job.arguments.get("pools", False)
    model = TinyModel(rank, 2, 3, LOGICAL, job.redundant, 0)
    model.num_moe_layers += job.arguments.get("more_layers", 0)
    state = new_state([model], config)
    forward = torch.zeros(1, 4) if pools else IntermediateTensors({})
    runner = bare_runner(config, state, forward, is_last_stage=pools)
    report = Report(job, rank, state)
    for step in range(job.steps):
        record_load(state, step)
        if job.arguments.get("idle", False) and step % 3:
            runner.execute_model(no_token())
            runner.eplb_step(is_dummy=True)
        else:
            answer = runner.execute_model(one_token())
            assert isinstance(answer, IntermediateTensors) != pools
            if not pools:
                runner.sample_tokens(None)
        report.look()
        if len(report.placements) >= job.rearrangements:
            break
    return {**report.as_dict(), "steps": step + 1, "counted": state.expert_rearrangement_step}
