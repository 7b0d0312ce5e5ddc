# SPDX-License-Identifier: Apache-2.0
"""Elastic EP adds the second rank: it makes its state while the first keeps the one it has."""

import os
from contextlib import suppress
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from tests.releases import two_ranks
from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import INTERVAL, LOGICAL, Job


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Rearrange once: settings of both ranks, why one was refused, and where experts are."""
    from vllm.distributed.parallel_state import get_ep_group

    if (version := job.arguments.get("version")) is not None:
        from vllm_eplb_plugin.engine import common_settings

        common_settings.__version__ = version
    # Elastic EP's groups bring a store, and are numbered by each process for itself.
    store = dist.PrefixStore("grown", distributed_c10d._get_default_store())
    group = get_ep_group()
    group.tcp_store_group, group.unique_name = SimpleNamespace(store=store), f"ep:{rank}"
    model = TinyModel(rank, 2, 3, LOGICAL, job.redundant, 0)
    # The second joins; the first has added its model before, without it.
    os.environ["VLLM_ELASTIC_EP_SCALE_UP_LAUNCH"] = "1"
    if rank == 1:
        dist.barrier()  # the first rank has its state
        work_without_configuration(rank, config)
    state = controlled_state if job.runner == "v2" else two_ranks.grown_state
    made = state(model, rank, config)
    if rank == 0:
        dist.barrier()
    dist.barrier()  # the second rank has its own
    seen = {"overridden": hasattr(made, "eplb_session"), "refused": None}
    try:
        rearrange(made)
    except RuntimeError as error:
        seen["refused"] = f"{type(error).__name__}: {error}"
    else:
        placement = made.model_states["model0"].physical_to_logical_map
        seen["placement"] = placement.tolist()
        seen["wrong_weights"] = len(model.wrong_slots(placement, rank))
        seen["met"] = store.check(["vllm_eplb_plugin/ep0/EPLB on or off/0/decided"])
        dist.barrier()  # the first rank keeps the store
    with suppress(ImportError):
        from vllm_eplb_plugin.observe.delivery import flush_all

        assert flush_all(10)
    return seen


def work_without_configuration(rank: int, config: Any) -> None:
    """Make a worker, and leave vLLM's configuration, as the new rank does before it has a state."""
    from vllm.config import vllm as vllm_config
    from vllm.v1.worker.worker_base import WorkerBase

    WorkerBase(config, rank, rank, "")
    vllm_config._current_vllm_config = None


def controlled_state(model: Any, rank: int, config: Any) -> Any:
    """As model runner V2 makes it; from 0.29 on while it loads the model."""
    from vllm.v1.worker.gpu.eplb_utils import EPLBController

    parallel = config.parallel_config
    if hasattr(parallel, "elastic_ep_max_dp_size"):
        parallel.elastic_ep_max_dp_size = parallel.data_parallel_size
    placement = torch.full((model.num_moe_layers, model.num_physical_experts), -1)
    placement[:, :LOGICAL] = torch.arange(LOGICAL)
    controller = EPLBController(parallel, torch.device("cpu"))
    controller.prepare_load()
    setup, model_config = controller.setup_from_mapping, two_ranks.model_config(model)
    asked = signature(setup).parameters
    if "model" in asked:
        counts_valid = "old_num_physical_experts" in asked
        setup(model, model_config, placement, *([LOGICAL] if counts_valid else []))
    else:
        register = controller.maybe_register_model
        dummies = [False] if "load_dummy_weights" in signature(register).parameters else []
        register(model, model_config, *dummies)
        setup(model_config, placement)
    model.forget_redundant(rank)
    return controller.state


def rearrange(state: Any) -> None:
    """As elastic EP does when both ranks have their state."""
    two_ranks.record_load(state, INTERVAL)
    state.step()
    state.is_async = False
    state.rearrange()
