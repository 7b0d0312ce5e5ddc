# SPDX-License-Identifier: Apache-2.0
"""A model that is thin and wide: many layers and experts, hardly any arithmetic."""

import json
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveInt

_GSM_TINY = Path(__file__).parents[1] / "models" / "gsm-tiny"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


class ModelShape(BaseModel):
    """The sizes that EPLB's work depends on."""

    model_config = ConfigDict(frozen=True)

    moe_layers: PositiveInt = 58
    experts: PositiveInt = 256
    redundant: PositiveInt = 32
    experts_per_token: PositiveInt = 8


def write_model(shape: ModelShape, folder: Path) -> None:
    """Write a DeepSeek-V2 without weights: serve it with ``--load-format dummy``.

    Hidden sizes are the smallest that vLLM's CPU experts take; attention heads have DeepSeek's own
    sizes, which its GPU kernels want. The tokenizer is gsm-tiny's.
    """
    config = json.loads((_GSM_TINY / "config.json").read_text(encoding="utf-8"))
    config |= {
        "num_hidden_layers": shape.moe_layers + config["first_k_dense_replace"],
        "n_routed_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "hidden_size": 64,
        "intermediate_size": 64,
        "moe_intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _TOKENIZER:
        shutil.copy(_GSM_TINY / name, folder / name)
