# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters as PEFT writes them."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

ATTENTION = "layers.0.self_attn.q_proj"
EXPERT = "layers.0.mlp.experts.{}.w1"


def write_adapter(folder: Path, modules: Iterable[str], pickled: str | None = None) -> None:
    """Write an adapter of rank 4.

    Args:
        folder: Where.
        modules: Those that it changes.
        pickled: A file's name for torch's own format; None: safetensors.
    """
    modules = list(modules)
    config = {"r": 4, "lora_alpha": 8, "target_modules": [m.split(".")[-1] for m in modules]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORA"}))
    weights = {
        f"base_model.model.{module}.lora_{factor}.weight": torch.zeros(4, 4)
        for module in modules
        for factor in "AB"
    }
    if pickled is None:
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(weights, folder / pickled)
