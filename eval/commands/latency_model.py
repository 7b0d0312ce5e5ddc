# SPDX-License-Identifier: Apache-2.0
"""The models that are served."""

import json
import shutil
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from eval.commands.latency_weights import HEAD_SIZE, SKEW, write_weights
from eval.results.latency import ModelShape

_GSM_TINY = Path(__file__).parents[1] / "models" / "gsm-tiny"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")

WEIGHTS = "model.safetensors"


class ShapeName(str, Enum):
    """Of ``--shape``."""

    wide = "wide"
    deepseek_v2_lite = "deepseek-v2-lite"
    qwen3_30b = "qwen3-30b"


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
    # Qwen/Qwen3-30B-A3B, config.json: 61 GB in bfloat16.
    ShapeName.qwen3_30b: ModelShape(
        architecture="qwen3_moe",
        moe_layers=48,
        experts=128,
        redundant=16,
        experts_per_token=8,
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        shared_experts=0,
        attention_heads=32,
        key_value_heads=4,
        vocabulary=151936,
        max_positions=40960,
    ),
}


def shape_of(name: ShapeName, changes: Mapping[str, int | None]) -> ModelShape:
    """The sizes of a shape, some of them changed.

    Args:
        name: Of the shape.
        changes: Other values, by the names of the sizes; None: as it is.
    """
    given = {size: value for size, value in changes.items() if value is not None}
    return SHAPES[name].model_copy(update=given)


def write_model(
    shape: ModelShape, folder: Path, weights: bool = False, skew: float | None = None
) -> None:
    """Write a random model.

    The tokenizer is gsm-tiny's: tokens that it does not know are streamed as empty text.

    Args:
        shape: Its sizes.
        folder: Is made if it is not there.
        weights: Random ones, with domains; without any it is served with ``--load-format dummy``.
        skew: Of its router (`write_weights`); None: as everywhere.
    """
    config = _qwen3(shape) if shape.architecture == "qwen3_moe" else _deepseek_v2(shape)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _TOKENIZER:
        shutil.copy(_GSM_TINY / name, folder / name)
    if weights:
        write_weights(shape, folder / WEIGHTS, SKEW if skew is None else skew)


def _deepseek_v2(shape: ModelShape) -> dict[str, Any]:
    config = json.loads((_GSM_TINY / "config.json").read_text(encoding="utf-8"))
    rope = config["rope_scaling"]
    original = rope["original_max_position_embeddings"]
    return {
        **config,
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


def _qwen3(shape: ModelShape) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_positions,
        "mlp_only_layers": [],
        "moe_intermediate_size": shape.moe_intermediate_size,
        "norm_topk_prob": True,
        "num_attention_heads": shape.attention_heads,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "num_hidden_layers": shape.moe_layers,
        "num_key_value_heads": shape.key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
    }
