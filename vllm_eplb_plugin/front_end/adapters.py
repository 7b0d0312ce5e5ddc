# SPDX-License-Identifier: Apache-2.0
"""Override of where a request names a LoRA adapter, which may not have been loaded yet.

A rank would load it in the midst of a step, where a refusal ends the engine.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.adapter_files import names_in, refuse_expert_weights
from vllm_eplb_plugin.overrides.override import Override


def _override_validate_lora(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _validate_lora(self: Any, lora_request: Any) -> None:
        original(self, lora_request)
        if lora_request is not None and self.vllm_config.parallel_config.enable_eplb:
            _examine(lora_request.lora_name, lora_request.lora_path)

    return _validate_lora


@functools.lru_cache(maxsize=1024)
def _examine(name: str, path: str) -> None:
    from vllm.lora.utils import get_adapter_absolute_path

    refuse_expert_weights(name, names_in(Path(get_adapter_absolute_path(path))))


OVERRIDES = (
    Override(
        target="vllm.v1.engine.input_processor:InputProcessor._validate_lora",
        signature="(self, lora_request)",
        kind="hook",
        replace=_override_validate_lora,
        fixes="A request may name an adapter that is loaded in a step only, where what is refused "
        "ends the engine.",
        delete_when="vLLM moves the weights of adapters with their experts, or refuses them.",
        releases=">=0.21",
    ),
)
