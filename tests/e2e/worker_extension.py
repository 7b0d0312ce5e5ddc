# SPDX-License-Identifier: Apache-2.0
"""Loaded into a server's workers by ``--worker-extension-cls``."""

from typing import Any

from safetensors.torch import load_file

_NAME = ".mlp.experts."


class ReloadExperts:
    """Reloads experts from the checkpoint and nothing else, which vLLM's CPU backend can: its dense
    layers keep packed copies that a reload does not reach."""

    model_runner: Any

    def reload_experts(self, file: str) -> None:
        experts = ((name, tensor) for name, tensor in load_file(file).items() if _NAME in name)
        self.model_runner.reload_weights(weights_iterator=experts)
