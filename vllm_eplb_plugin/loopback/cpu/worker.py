# SPDX-License-Identifier: Apache-2.0
"""vLLM's CPU worker with the loopback overrides bound, named by ``worker_cls``."""

from typing import Any

import torch
from vllm.v1.worker.cpu_worker import CPUWorker

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.faults.selection import overrides_on_purpose
from vllm_eplb_plugin.overrides.binding import bind
from vllm_eplb_plugin.overrides.catalogue import overrides_for
from vllm_eplb_plugin.settings import adopt_settings


class LoopbackCPUWorker(CPUWorker):  # type: ignore[misc]
    """A worker that is one EP rank on a CPU."""

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        settings = adopt_settings(vllm_config.additional_config)
        support = installed_support()
        overrides = overrides_for(support.release)
        bind((*overrides.loopback, *overrides.loopback_serving))
        bind(overrides_on_purpose(settings, support.release))
        # vLLM's bfloat16 experts use AMX without asking Linux for its registers. Other kernels ask,
        # but not where all weights are small and a rank's first step has 4 tokens or fewer: the
        # rank then dies of an illegal instruction, without a word.
        torch.cpu._init_amx()
        super().__init__(vllm_config, *args, **kwargs)
