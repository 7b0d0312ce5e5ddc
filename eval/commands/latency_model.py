# SPDX-License-Identifier: Apache-2.0
"""The models that are served."""

import json
import shutil
from enum import Enum
from pathlib import Path

from eval.commands.latency_weights import HEAD_SIZE, write_weights
from eval.results.latency import ModelShape

_GSM_TINY = Path(__file__).parents[1] / "models" / "gsm-tiny"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


class ShapeName(str, Enum):
    """Of ``--shape``."""

    wide = "wide"
    deepseek_v2_lite = "deepseek-v2-lite"


SHAPES = {
    ShapeName.wide: ModelShape(),
    # deepseek-ai/DeepSeek-V2-Lite, config.json: 31 GB in bfloat16.
    ShapeName.deepseek_v2_lite: ModelShape(
        moe_layers=26,
        experts=64,
        redundant=16,
        experts_per_token=6,
        hidden_size=2048,
        intermediate_size=10944,
        moe_intermediate_size=1408,
        shared_experts=2,
        attention_heads=16,
        vocabulary=102400,
        max_positions=163840,
    ),
}


def write_model(shape: ModelShape, folder: Path, weights: bool = False) -> None:
    """Write a DeepSeek-V2.

    The tokenizer is gsm-tiny's: tokens that it does not know are streamed as empty text.

    Args:
        shape: Its sizes.
        folder: Is made if it is not there.
        weights: Random ones, with domains; without any it is served with ``--load-format dummy``.
    """
    config = json.loads((_GSM_TINY / "config.json").read_text(encoding="utf-8"))
    rope = config["rope_scaling"]
    original = rope["original_max_position_embeddings"]
    config |= {
        "num_hidden_layers": shape.moe_layers + config["first_k_dense_replace"],
        "n_routed_experts": shape.experts,
        "n_shared_experts": shape.shared_experts,
        "num_experts_per_tok": shape.experts_per_token,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "moe_intermediate_size": shape.moe_intermediate_size,
        "num_attention_heads": shape.attention_heads,
        "num_key_value_heads": shape.attention_heads,
        "qk_nope_head_dim": HEAD_SIZE,
        "v_head_dim": HEAD_SIZE,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.max_positions,
        "rope_scaling": {**rope, "factor": shape.max_positions / original},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _TOKENIZER:
        shutil.copy(_GSM_TINY / name, folder / name)
    if weights:
        write_weights(shape, folder / "model.safetensors")
