# SPDX-License-Identifier: Apache-2.0
"""Given loads, step by step, and what is planned from them."""

from typing import Any

import torch

from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, new_state, wait_for_worker


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Make a step for each of the loads.

    ``loads`` of the arguments are ``[steps, logical]``; ``window`` and ``interval`` are vLLM's;
    every ``dummies``-th step of rank 1 is a dummy one. After step ``put_back``, experts go back to
    the first placement, as before weights are replaced.
    """
    eplb = config.parallel_config.eplb_config
    eplb.window_size, eplb.step_interval = job.arguments["window"], job.arguments["interval"]
    from vllm_eplb_plugin.engine.first_placement import put_back

    models = [TinyModel(rank, 2, 3, LOGICAL, job.redundant, tag) for tag in range(job.models)]
    models[0].is_drafter = job.models > 1
    state = new_state(models, config)
    state.start_async_loop()
    report = Report(job, rank, state)
    for step, load in enumerate(job.arguments["loads"], start=1):
        is_dummy = rank == 1 and step % job.arguments["dummies"] == 0
        for model_state in state.model_states.values():
            record(model_state, torch.tensor(load))
        state.step(is_dummy=is_dummy)
        if step == job.arguments["put_back"]:
            put_back(state, "new weights")
        report.look()
        wait_for_worker(state)
    return report.as_dict()


def record(model_state: Any, load: torch.Tensor) -> None:
    """Let the first replica of each expert have these tokens, in every layer."""
    first = model_state.logical_to_physical_map[..., 0]
    model_state.expert_load_pass.zero_()
    rows = load.to(torch.int32).expand(first.shape[0], -1)
    model_state.expert_load_pass.scatter_(1, first, rows)
