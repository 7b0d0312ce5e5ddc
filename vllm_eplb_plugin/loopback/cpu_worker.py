# SPDX-License-Identifier: Apache-2.0
"""vLLM's CPU worker with the loopback overrides bound, named by ``worker_cls``."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from vllm_eplb_plugin.install import bind
from vllm_eplb_plugin.loopback.errors import LoopbackError
from vllm_eplb_plugin.loopback.on_purpose import overrides_on_purpose
from vllm_eplb_plugin.releases import installed_support
from vllm_eplb_plugin.settings import load_settings


class LoopbackCPUWorker(CPUWorker):  # type: ignore[misc]
    """One EP rank on the CPU."""

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        settings = load_settings(vllm_config.additional_config)
        support = installed_support()
        overrides = support.load()
        bind((*overrides.loopback, *overrides.loopback_serving))
        bind(overrides_on_purpose(settings, support.release))
        super().__init__(vllm_config, *args, **kwargs)
        if getattr(self, "use_v2_model_runner", False):  # 0.18 has no other runner on a CPU
            raise LoopbackError(
                "loopback on the CPU uses model runner V1: set VLLM_USE_V2_MODEL_RUNNER=0"
            )
