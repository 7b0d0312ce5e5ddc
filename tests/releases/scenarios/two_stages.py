# SPDX-License-Identifier: Apache-2.0
"""Two pipeline stages of one EP rank each, of which not every one has experts."""

from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from vllm.distributed import parallel_state

from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, model_config, record_load


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Start as the runner does and step; ``layers``: how many MoE layers each stage has."""
    parallel_state.destroy_model_parallel()
    config.parallel_config.tensor_parallel_size = 1
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=1, pipeline_model_parallel_size=2, backend="gloo"
    )
    model = TinyModel(0, 1, job.arguments["layers"][rank], LOGICAL, job.redundant, rank)
    state, step_state = _start(job, model, config)
    if not state.model_states:
        for _ in range(30):
            step_state()
        dist.barrier()  # the other stage reads from a store that this one may keep
        return {"has_experts": False}
    report = Report(job, 0, state)
    for step in range(30):
        record_load(state, step)
        step_state()
        report.look()
    dist.barrier()
    return {"has_experts": True, **report.as_dict()}


def _start(job: Job, model: TinyModel, config: Any) -> tuple[Any, Any]:
    if job.runner == "v2":
        from vllm.v1.worker.gpu.eplb_utils import EPLBController

        controller = EPLBController(config.parallel_config, torch.device("cpu"))
        controller.prepare_load()
        register = controller.maybe_register_model
        dummies = [False] if "load_dummy_weights" in signature(register).parameters else []
        controller.maybe_start_async_loop(register(model, model_config(model), *dummies))
        controller.step(is_dummy=True, is_profile=True)
        return controller.state, controller.step
    from vllm.distributed.eplb.eplb_state import EplbState
    from vllm.v1.worker import gpu_model_runner  # noqa: F401 - before the state, as in a worker

    from tests.releases.runner_v1 import bare_runner

    state = EplbState(config.parallel_config, torch.device("cpu"))
    if model.num_moe_layers:
        state.add_model(model, model_config(model))
    runner = bare_runner(config, state, None)
    runner._moe_model = model if model.num_moe_layers else None
    runner.get_model = lambda: model
    runner.eplb_step(is_dummy=True, is_profile=True)
    return state, runner.eplb_step
