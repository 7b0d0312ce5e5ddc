# SPDX-License-Identifier: Apache-2.0
"""vLLM's GPU worker with the loopback overrides bound, named by ``worker_cls``."""

import os
from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.faults.selection import overrides_on_purpose
from vllm_eplb_plugin.overrides.binding import bind
from vllm_eplb_plugin.overrides.catalogue import overrides_for
from vllm_eplb_plugin.settings import adopt_settings


class LoopbackCudaWorker(Worker):  # type: ignore[misc]
    """A worker that is one EP rank of several on one GPU."""

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        settings = adopt_settings(vllm_config.additional_config)
        support = installed_support()
        bind(overrides_for(support.release).loopback_cuda)
        bind(overrides_on_purpose(settings, support.release))
        if "OMP_NUM_THREADS" not in os.environ:
            # As in vLLM's worker processes: ranks of one machine would fight for its cores.
            torch.set_num_threads(1)
        super().__init__(vllm_config, *args, **kwargs)

    def init_device(self) -> None:
        """Take the first GPU, whichever data parallel rank this is."""
        local = self.parallel_config.data_parallel_rank_local
        # vLLM adds the rank to find a GPU that nobody else has.
        self.local_rank -= self.parallel_config.data_parallel_index if local is None else local
        super().init_device()
