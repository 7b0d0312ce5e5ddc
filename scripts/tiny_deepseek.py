# SPDX-License-Identifier: Apache-2.0
"""Shape of small DeepSeek-V2 models, and random weights whose routing is skewed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tiny_tokenizer import END_TOKEN, SPECIAL_TOKENS, VOCABULARY_SIZE

NUM_HEADS = 4
HEAD_SIZE = 32
# The only sizes that vLLM's CPU MLA attention has; DeepSeek-V2-Lite's own.
KV_LORA_RANK = 512
ROPE_HEAD_SIZE = 64
# vLLM's CPU MoE kernel works on blocks of this many channels.
SIZE_MULTIPLE = 32
# So that 2 or 4 EP ranks hold equally many experts.
EXPERTS_MULTIPLE = 4

# Gains: the standard deviation of a projection's output for an input of standard deviation 1.
# At 1, attention is nearly a mean over the prompt, so each prompt is continued alike and soon in a
# loop; towards 4 it looks at single tokens, but float32 rounding grows from layer to layer.
QUERY_GAIN = 2.5
# Peaked, as after training: the last expert of a token weighs little, so where rounding decides
# between two for that place, the difference hardly shows.
GATE_GAIN = 3.0
# Hidden channel 0 has the same value for every token and layer: nothing writes to it. Gates read
# it as a bias for each expert, which skews the routing, as training does: without skew an expert
# parallel load balancer has nothing to do. The head reads it to keep special tokens away.
BIAS_CHANNEL = 0
GATE_BIAS_GAIN = 3.75
SPECIAL_TOKEN_BIAS = -100.0

# Names as in the checkpoints on the hub.
NamedTensors = Iterator[tuple[str, torch.Tensor]]


class OptionError(ValueError):
    """An option that cannot be used; the message names the rule it breaks."""


@dataclass(frozen=True)
class Options:
    """What determines the bytes of a checkpoint."""

    seed: int = 3
    """With 3, greedy answers to the questions of preset cpu have no near-tie: the two best tokens
    are at least 9e-5 apart in log-probability. With 0 the closest are 2.8e-5 and with 2 they are
    4.9e-5 apart: the nearer, the likelier rounding alone changes an answer."""
    layers: int = 5
    experts: int = 16
    experts_per_token: int = 4
    hidden_size: int = 128
    intermediate_size: int = 256
    moe_intermediate_size: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"--seed is between 0 and 2**32 - 1, not {self.seed}")
        if self.layers < 2:
            raise OptionError(f"--layers is 2 or more (the first is dense), not {self.layers}")
        if self.experts < EXPERTS_MULTIPLE or self.experts % EXPERTS_MULTIPLE:
            raise OptionError(
                f"--experts is a multiple of {EXPERTS_MULTIPLE}, so that 2 or 4 EP ranks can "
                f"share them evenly, not {self.experts}"
            )
        if not 1 <= self.experts_per_token <= self.experts:
            raise OptionError(
                f"--experts-per-token is between 1 and --experts ({self.experts}), "
                f"not {self.experts_per_token}"
            )
        for name in ("hidden_size", "intermediate_size", "moe_intermediate_size"):
            size = getattr(self, name)
            if size < SIZE_MULTIPLE or size % SIZE_MULTIPLE:
                flag = "--" + name.replace("_", "-")
                raise OptionError(f"{flag} is a multiple of {SIZE_MULTIPLE}, not {size}")


def model_config(options: Options) -> dict[str, Any]:
    """The `config.json`, with the older key names, which transformers 4 and 5 both read."""
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "torch_dtype": "float32",
        "vocab_size": VOCABULARY_SIZE,
        "bos_token_id": None,
        "eos_token_id": SPECIAL_TOKENS.index(END_TOKEN),
        "hidden_act": "silu",
        "hidden_size": options.hidden_size,
        "intermediate_size": options.intermediate_size,
        "num_hidden_layers": options.layers,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_HEADS,
        "q_lora_rank": None,
        "kv_lora_rank": KV_LORA_RANK,
        "qk_nope_head_dim": HEAD_SIZE,
        "qk_rope_head_dim": ROPE_HEAD_SIZE,
        "v_head_dim": HEAD_SIZE,
        "max_position_embeddings": 16384,
        "rope_theta": 10000.0,
        # Not a matter of taste: vLLM's CPU rotary kernel is wrong for the default rope.
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 0.707,
            "mscale_all_dim": 0.707,
        },
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "moe_intermediate_size": options.moe_intermediate_size,
        "n_routed_experts": options.experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": options.experts_per_token,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
    }


def random_tensors(options: Options) -> NamedTensors:
    """Draw the weights, float32, under the names of the hub's DeepSeek-V2 checkpoints."""
    generator = torch.Generator().manual_seed(options.seed)
    hidden = options.hidden_size

    def normal(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        weight = torch.randn(rows, columns, generator=generator)
        return weight * (gain / math.sqrt(columns))

    def residual(columns: int) -> torch.Tensor:
        weight = normal(hidden, columns)
        weight[BIAS_CHANNEL] = 0.0
        return weight

    def feed_forward(prefix: str, size: int) -> NamedTensors:
        yield f"{prefix}.gate_proj.weight", normal(size, hidden)
        yield f"{prefix}.up_proj.weight", normal(size, hidden)
        yield f"{prefix}.down_proj.weight", residual(size)

    def attention(prefix: str) -> NamedTensors:
        query_size = NUM_HEADS * (HEAD_SIZE + ROPE_HEAD_SIZE)
        yield f"{prefix}.q_proj.weight", normal(query_size, hidden, QUERY_GAIN)
        yield f"{prefix}.kv_a_proj_with_mqa.weight", normal(KV_LORA_RANK + ROPE_HEAD_SIZE, hidden)
        yield f"{prefix}.kv_a_layernorm.weight", torch.ones(KV_LORA_RANK)
        yield f"{prefix}.kv_b_proj.weight", normal(NUM_HEADS * 2 * HEAD_SIZE, KV_LORA_RANK)
        yield f"{prefix}.o_proj.weight", residual(NUM_HEADS * HEAD_SIZE)

    def gate() -> torch.Tensor:
        weight = normal(options.experts, hidden, GATE_GAIN)
        weight[:, BIAS_CHANNEL] = torch.randn(options.experts, generator=generator) * GATE_BIAS_GAIN
        return weight

    embedding = torch.randn(VOCABULARY_SIZE, hidden, generator=generator)
    embedding[:, BIAS_CHANNEL] = 1.0
    yield "model.embed_tokens.weight", embedding
    for layer in range(options.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", torch.ones(hidden)
        yield from attention(f"{prefix}.self_attn")
        yield f"{prefix}.post_attention_layernorm.weight", torch.ones(hidden)
        if layer == 0:
            yield from feed_forward(f"{prefix}.mlp", options.intermediate_size)
            continue
        yield f"{prefix}.mlp.gate.weight", gate()
        size = options.moe_intermediate_size
        for expert in range(options.experts):
            yield from feed_forward(f"{prefix}.mlp.experts.{expert}", size)
        yield from feed_forward(f"{prefix}.mlp.shared_experts", size)
    yield "model.norm.weight", torch.ones(hidden)
    # Away from its own embedding: a token that follows itself is how greedy decoding gets stuck.
    head = normal(VOCABULARY_SIZE, hidden) - embedding * (0.5 / math.sqrt(hidden))
    head[:, BIAS_CHANNEL] = 0.0
    head[: len(SPECIAL_TOKENS), BIAS_CHANNEL] = SPECIAL_TOKEN_BIAS
    yield "lm_head.weight", head
