# SPDX-License-Identifier: Apache-2.0
"""Override of where a rank loads a LoRA adapter."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.adapter_files import names_in, refuse_expert_weights
from vllm_eplb_plugin.overrides.override import Override


def _override_load_adapter(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _load_adapter(self: Any, lora_request: Any) -> Any:
        from vllm.lora.utils import get_adapter_absolute_path

        folder = Path(get_adapter_absolute_path(lora_request.lora_path))
        refuse_expert_weights(lora_request.lora_name, names_in(folder))
        adapter = original(self, lora_request)
        # A model may give modules of another name the name of experts.
        refuse_expert_weights(lora_request.lora_name, getattr(adapter, "loras", ()))
        return adapter

    return _load_adapter


OVERRIDES = (
    Override(
        target="vllm.lora.worker_manager:WorkerLoRAManager._load_adapter",
        signature="(self, lora_request)",
        kind="hook",
        replace=_override_load_adapter,
        fixes="A LoRA adapter's weights for experts stay on the rank and in the slot that the "
        "experts had at first: after a rearrangement they change other experts, without a word.",
        delete_when="vLLM moves the weights of adapters with their experts, or refuses them.",
        releases=">=0.21",
    ),
)
