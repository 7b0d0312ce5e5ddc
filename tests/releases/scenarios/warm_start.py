# SPDX-License-Identifier: Apache-2.0
"""Models that begin with experts where a recording or a placement has them."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.releases.scenarios.planned import record
from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, new_state, wait_for_worker


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Begin, and make a step for each of the loads.

    ``loads`` of the arguments are ``[steps, logical]``. After step ``put_back``, experts go back to
    vLLM's first placement, as before weights are replaced. ``refused``: each rank is to fail, and
    reports its error. ``options`` are attributes of vLLM's parallel configuration.
    """
    eplb, told = config.parallel_config.eplb_config, job.arguments
    eplb.window_size = eplb.step_interval = told["interval"]
    for name, value in told.get("options", {}).items():
        setattr(config.parallel_config, name, value)
    models = [TinyModel(rank, 2, 3, LOGICAL, job.redundant, tag) for tag in range(job.models)]
    models[0].is_drafter = job.models > 1
    if told.get("refused"):
        with pytest.raises((RuntimeError, ValueError)) as raised:
            new_state(models, config)
        dist.barrier()  # the first rank keeps the store in which the other may still read
        return {"error": f"{raised.typename}: {raised.value}"}
    from vllm_eplb_plugin.engine.first_placement import put_back

    state = new_state(models, config)
    state.start_async_loop()
    report = Report(job, rank, state)
    report.look()
    recorded = []
    for step, load in enumerate(told["loads"], start=1):
        for model_state in state.model_states.values():
            record(model_state, torch.tensor(load))
        state.step()
        flag = getattr(state, "should_record_tensor", None)
        recorded.append(None if flag is None else bool(flag))
        report.look()
        wait_for_worker(state)
        if step == told.get("put_back"):
            put_back(state, "new weights")
            report.look()
    return {**report.as_dict(), "recorded": recorded}
