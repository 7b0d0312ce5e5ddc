# SPDX-License-Identifier: Apache-2.0
"""Random weights of a model in which every domain of tokens has experts of its own.

One hidden channel a domain says which one a token is of. No layer writes into these channels, so
that every gate reads them as a bias of each expert, as training skews a router, and the head keeps
a completion in its domain. All replicas of an expert are loaded with the same weights, which
vLLM's dummy weights are not: what `check_weights` compares is there.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.load.domains import DOMAINS, tokens_of
from eval.results.latency import ModelShape

KV_LORA_RANK = 512
ROPE_HEAD_SIZE = 64
HEAD_SIZE = 128
"""With these two, DeepSeek-V2's own."""

_DOMAIN_SIGNAL = 4.0
"""Of a token's own channel, where the others have about 1."""
SKEW = 0.5
"""Of a router, unless another one is given (`write_weights`)."""
_HEAD_BIAS = 4.0
"""Times the signal: tokens of other domains are out of reach."""
_OUTPUT_GAIN = 0.1
"""Of what a layer adds: after 59 of them a token's own channel still stands out."""
_POOL = (1 << 22) - 3
"""Numbers; no multiple of a row's, so that rows of a matrix that is larger differ."""
_ROWS = 1 << 12
"""Written at a time."""
_Bfloat16 = NDArray[np.uint16]


class _Tensor(NamedTuple):
    name: str
    rows: int
    columns: int
    """0: a vector."""
    gain: float
    """Deviation of an output for inputs of deviation 1; of a vector, its value."""
    kind: str = ""
    """Which rows or columns the domains have: ``writes``, ``gate``, ``embedding`` or ``head``."""

    @property
    def shape(self) -> list[int]:
        return [self.rows, self.columns] if self.columns else [self.rows]

    @property
    def bytes(self) -> int:
        return 2 * math.prod(self.shape)


def write_weights(shape: ModelShape, file: Path, skew: float = SKEW) -> None:
    """Write ``model.safetensors`` in bfloat16, the same bytes for the same shape and skew.

    A tensor is cut from one pool of random numbers, each at a place of its own: gigabytes are
    written as fast as they are copied.

    Args:
        shape: Of the model.
        file: To write.
        skew: Times the signal, the deviation of a domain's bias of an expert; 1 is that of a
            token's, and with 0 every domain goes to all experts alike.
    """
    tensors = list(_tensors(shape))
    ends = np.cumsum([one.bytes for one in tensors]).tolist()
    header: dict[str, object] = {
        one.name: {"dtype": "BF16", "shape": one.shape, "data_offsets": [end - one.bytes, end]}
        for one, end in zip(tensors, ends, strict=True)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    pool = random.standard_normal(_POOL, dtype=np.float32)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        scaled: dict[float, _Bfloat16] = {}
        for one in tensors:
            _write(one, shape, skew, pool, scaled, random, out)


def _tensors(shape: ModelShape) -> Iterator[_Tensor]:
    hidden = shape.hidden_size
    yield _Tensor("model.embed_tokens.weight", shape.vocabulary, hidden, 1, "embedding")
    for layer in range(shape.dense_layers + shape.moe_layers):
        prefix = f"model.layers.{layer}"
        yield _Tensor(f"{prefix}.input_layernorm.weight", hidden, 0, 1)
        yield from _attention(f"{prefix}.self_attn", shape)
        yield _Tensor(f"{prefix}.post_attention_layernorm.weight", hidden, 0, 1)
        if layer < shape.dense_layers:
            yield from _feed_forward(f"{prefix}.mlp", hidden, shape.intermediate_size)
            continue
        size = shape.moe_intermediate_size
        yield _Tensor(f"{prefix}.mlp.gate.weight", shape.experts, hidden, 1, "gate")
        for expert in range(shape.experts):
            yield from _feed_forward(f"{prefix}.mlp.experts.{expert}", hidden, size)
        if shape.shared_experts:
            yield from _feed_forward(
                f"{prefix}.mlp.shared_experts", hidden, size * shape.shared_experts
            )
    yield _Tensor("model.norm.weight", hidden, 0, 1)
    yield _Tensor("lm_head.weight", shape.vocabulary, hidden, 1, "head")


def _attention(prefix: str, shape: ModelShape) -> Iterator[_Tensor]:
    hidden, heads = shape.hidden_size, shape.attention_heads
    if shape.architecture == "qwen3_moe":
        keys = shape.key_value_heads * HEAD_SIZE
        yield _Tensor(f"{prefix}.q_proj.weight", heads * HEAD_SIZE, hidden, 1)
        yield _Tensor(f"{prefix}.k_proj.weight", keys, hidden, 1)
        yield _Tensor(f"{prefix}.v_proj.weight", keys, hidden, 1)
        yield _Tensor(f"{prefix}.q_norm.weight", HEAD_SIZE, 0, 1)
        yield _Tensor(f"{prefix}.k_norm.weight", HEAD_SIZE, 0, 1)
        yield _Tensor(f"{prefix}.o_proj.weight", hidden, heads * HEAD_SIZE, _OUTPUT_GAIN, "writes")
        return
    yield _Tensor(f"{prefix}.q_proj.weight", heads * (HEAD_SIZE + ROPE_HEAD_SIZE), hidden, 1)
    low_rank = KV_LORA_RANK + ROPE_HEAD_SIZE
    yield _Tensor(f"{prefix}.kv_a_proj_with_mqa.weight", low_rank, hidden, 1)
    yield _Tensor(f"{prefix}.kv_a_layernorm.weight", KV_LORA_RANK, 0, 1)
    yield _Tensor(f"{prefix}.kv_b_proj.weight", heads * 2 * HEAD_SIZE, KV_LORA_RANK, 1)
    yield _Tensor(f"{prefix}.o_proj.weight", hidden, heads * HEAD_SIZE, _OUTPUT_GAIN, "writes")


def _feed_forward(prefix: str, hidden: int, size: int) -> Iterator[_Tensor]:
    yield _Tensor(f"{prefix}.gate_proj.weight", size, hidden, 1)
    yield _Tensor(f"{prefix}.up_proj.weight", size, hidden, 1)
    yield _Tensor(f"{prefix}.down_proj.weight", hidden, size, _OUTPUT_GAIN, "writes")


def _write(
    one: _Tensor,
    shape: ModelShape,
    skew: float,
    pool: NDArray[np.float32],
    scaled: dict[float, _Bfloat16],
    random: np.random.Generator,
    out: BinaryIO,
) -> None:
    if not one.columns:
        out.write(_bfloat16(np.full(one.rows, one.gain, np.float32)).tobytes())
        return
    deviation = 1.0 if one.kind == "embedding" else one.gain / math.sqrt(one.columns)
    if deviation not in scaled:
        scaled[deviation] = _bfloat16(pool * np.float32(deviation))
    for first in range(0, one.rows, _ROWS):
        rows = range(first, min(first + _ROWS, one.rows))
        drawn = _cut(scaled[deviation], len(rows) * one.columns, random)
        part = drawn.reshape(len(rows), one.columns)
        if one.kind:
            _set_domains(part, rows, one.kind, shape.vocabulary, skew, random)
        out.write(part.tobytes())


def _cut(pool: _Bfloat16, size: int, random: np.random.Generator) -> _Bfloat16:
    """So many numbers of the pool, from a random place on and then from its start."""
    part = np.empty(size, np.uint16)
    start, done = int(random.integers(len(pool))), 0
    while done < size:
        piece = pool[start : start + size - done]
        part[done : done + len(piece)] = piece
        start, done = 0, done + len(piece)
    return part


def _set_domains(
    part: _Bfloat16,
    rows: Sequence[int],
    kind: str,
    vocabulary: int,
    skew: float,
    random: np.random.Generator,
) -> None:
    """Write the domains' part into some rows of a matrix."""
    if kind == "writes":
        part[: max(0, DOMAINS - rows[0])] = 0
        return
    if kind == "gate":
        biases = random.standard_normal((len(rows), DOMAINS), dtype=np.float32)
        part[:, :DOMAINS] = _bfloat16(biases * np.float32(skew))
        return
    value = _DOMAIN_SIGNAL if kind == "embedding" else _HEAD_BIAS
    part[:, :DOMAINS] = 0
    for domain in range(DOMAINS):
        tokens = tokens_of(domain, vocabulary)
        first, last = max(tokens.start, rows[0]), min(tokens.stop, rows[-1] + 1)
        if first < last:
            part[first - rows[0] : last - rows[0], domain] = _bfloat16(np.array([value]))[0]


def _bfloat16(values: NDArray[np.floating]) -> _Bfloat16:
    """The upper half of each float32."""
    upper: _Bfloat16 = (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype("u2")
    return upper
