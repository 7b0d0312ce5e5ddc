# SPDX-License-Identifier: Apache-2.0
"""Gives vLLM's CPU model runner the `EplbState` that the GPU's has, and the drafter to it."""

import functools
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.loopback.cpu.preparation import RELEASES
from vllm_eplb_plugin.overrides.override import Override


def _override_load_model(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def load_model(self: Any, load_dummy_weights: bool = False) -> None:
        from vllm.distributed.eplb.eplb_state import EplbState

        original(self, load_dummy_weights)
        _make_intermediate_tensors(self)
        if not self.parallel_config.enable_eplb:
            return
        # Where 0.32's runner keeps it; 0.18's asks for the model itself.
        self._moe_model = _find_experts(self.model)
        self.eplb_state = EplbState(self.parallel_config, self.device)
        has_models = _add_drafter(self)
        if self._moe_model is not None:
            self.eplb_state.add_model(self._moe_model, self.model_config)
            has_models = True
        if has_models:
            self.eplb_state.start_async_loop()
        else:
            # As the GPU's does before it serves: refused unless another pipeline stage has experts.
            self.eplb_step(is_profile=True)

    return load_model


def _add_drafter(runner: Any) -> bool:
    """Give the `EplbState` the drafter that has experts, if any, before its model as a GPU's does.

    With a drafter 0.18's CPU runner ends by itself, before it loads anything.
    """
    if runner.speculative_config is None:
        return False
    from vllm.v1.worker.gpu.eplb_utils import EPLBController

    # What the GPU's runners decide and do, one of them through this class.
    controller = EPLBController(runner.parallel_config, runner.device)
    controller.state = runner.eplb_state
    added: bool = controller.maybe_register_speculator(
        getattr(runner, "drafter", None), runner.speculative_config, load_dummy_weights=False
    )
    return added


def _make_intermediate_tensors(runner: Any) -> None:
    """What a pipeline stage receives into; the GPU's runner makes it when memory is profiled."""
    from vllm.distributed.parallel_state import get_pp_group

    if not get_pp_group().is_first_rank:
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )


def _find_experts(model: Any) -> Any:
    """The part of a model that has experts; None: there is none on this pipeline stage."""
    from vllm.model_executor.models import interfaces

    if hasattr(interfaces, "get_mixture_of_experts_model"):
        return interfaces.get_mixture_of_experts_model(model)
    return model if interfaces.is_mixture_of_experts(model) else None


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
