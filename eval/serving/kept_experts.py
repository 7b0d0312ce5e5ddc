# SPDX-License-Identifier: Apache-2.0
"""Loaded into a server's workers by ``--worker-extension-cls``: weights that can be reloaded."""

from typing import Any


class KeptExperts:
    """Keeps each rank's experts as they were loaded, and reloads them by vLLM's own way for weights
    that are sharded and in the kernel's format. Its CPU backend packs experts when it loads them,
    and not even a server without EPLB recovers from ``reload_weights`` out of a checkpoint."""

    model_runner: Any
    _kept: list[tuple[str, Any]]

    def keep_experts(self) -> int:
        """Keep them; return how many tensors these are."""
        named = self.model_runner.model.named_parameters()
        self._kept = [(name, p.detach().clone()) for name, p in named if ".mlp.experts." in name]
        return len(self._kept)

    def reload_experts(self) -> None:
        """Reload what was kept."""
        self.model_runner.reload_weights(
            weights_iterator=iter(self._kept), is_checkpoint_format=False
        )
