# SPDX-License-Identifier: Apache-2.0
"""vLLM's process groups of EP ranks on one host, each a process, over data parallelism."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from vllm.config import ParallelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state

from vllm_eplb_plugin.bench.transfer.task import Task


@contextlib.contextmanager
def vllm_groups(task: Task, rank: int) -> Iterator[Any]:
    """Yield vLLM's group of EPLB, as long as this is open.

    Ranks that share a GPU have gloo only: NCCL refuses two of them on one.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if task.shared:
        os.environ["VLLM_DISABLE_PYNCCL"] = "1"
    config = VllmConfig(parallel_config=ParallelConfig())
    parallel = config.parallel_config
    parallel.enable_eplb = True  # which vLLM refuses on a CPU
    parallel.data_parallel_size = task.ranks
    # Else vLLM would look for its own port and rank.
    parallel.distributed_executor_backend = "external_launcher"
    local = 0 if task.shared or task.device == "cpu" else rank
    if task.device == "cuda":
        torch.cuda.set_device(local)
    backend = "nccl" if task.device == "cuda" and not task.shared else "gloo"
    address = f"tcp://127.0.0.1:{task.port}"
    with set_current_vllm_config(config):
        try:
            parallel_state.init_distributed_environment(task.ranks, rank, address, local, backend)
            parallel_state.initialize_model_parallel(backend=backend)
            yield parallel_state.get_eplb_group()
        finally:
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()
