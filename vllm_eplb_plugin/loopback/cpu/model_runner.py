# SPDX-License-Identifier: Apache-2.0
"""Gives vLLM's CPU model runner the `EplbState` that the GPU's has."""

import functools
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.engine.refusals import ModelWithoutEplbError
from vllm_eplb_plugin.loopback.cpu.preparation import RELEASES
from vllm_eplb_plugin.overrides.override import Override


def _override_load_model(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def load_model(self: Any, load_dummy_weights: bool = False) -> None:
        from vllm.distributed.eplb.eplb_state import EplbState

        original(self, load_dummy_weights)
        if not self.parallel_config.enable_eplb:
            return
        # Where 0.32's runner keeps it; 0.18's asks for the model itself.
        self._moe_model = _find_experts(self.model)
        self.eplb_state = EplbState(self.parallel_config, self.device)
        self.eplb_state.add_model(self._moe_model, self.model_config)
        self.eplb_state.start_async_loop()

    return load_model


def _find_experts(model: Any) -> Any:
    from vllm.model_executor.models import interfaces

    if hasattr(interfaces, "get_mixture_of_experts_model"):
        found = interfaces.get_mixture_of_experts_model(model)
    else:
        found = model if interfaces.is_mixture_of_experts(model) else None
    if found is None:
        raise ModelWithoutEplbError(type(model).__name__)
    return found


OVERRIDES = tuple(
    Override(
        target="vllm.v1.worker.cpu_model_runner:CPUModelRunner.load_model",
        signature="(self, load_dummy_weights=False)",
        kind="pretend",
        replace=_override_load_model,
        fixes="The CPU model runner never makes an EplbState.",
        delete_when="vLLM's EPLB runs on a CPU device.",
        releases=releases,
    )
    for releases in RELEASES
)
