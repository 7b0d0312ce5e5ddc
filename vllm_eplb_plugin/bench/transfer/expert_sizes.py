# SPDX-License-Identifier: Apache-2.0
"""What the weights of one expert are in models that transfers are measured for."""

import math
import re
from dataclasses import dataclass

_WORD = 8
"""Bytes that every row is a multiple of: what is written into it to be found again."""


@dataclass(frozen=True)
class ExpertTensor:
    """One tensor of an expert, as the model has it."""

    dtype: str
    """Its name in torch."""
    shape: tuple[int, ...]
    itemsize: int

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.numbers * self.itemsize


@dataclass(frozen=True)
class ExpertSizes:
    """A model's experts: how large one is, and how many there are."""

    name: str
    layers: int
    slots: int
    """Physical experts of a layer, on all ranks."""
    tensors: tuple[ExpertTensor, ...]

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert of one layer."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def __str__(self) -> str:
        """Name it with what one expert takes."""
        return f"{self.name}, {len(self.tensors)} tensors of {megabytes(self.expert_bytes)}"


def megabytes(size: float) -> str:
    """Write bytes for a person."""
    return f"{size / 1e6:.3g} MB" if size >= 1e5 else f"{size / 1e3:.3g} kB"


def _gated(hidden: int, intermediate: int) -> tuple[ExpertTensor, ...]:
    """``w13`` and ``w2`` in bfloat16."""
    shapes = ((2 * intermediate, hidden), (hidden, intermediate))
    return tuple(ExpertTensor("bfloat16", shape, 2) for shape in shapes)


def _gated_blocks(hidden: int, intermediate: int, block: int) -> tuple[ExpertTensor, ...]:
    """``w13`` and ``w2`` in float8, each with one float32 scale a block."""
    shapes = ((2 * intermediate, hidden), (hidden, intermediate))
    return (
        *(ExpertTensor("float8_e4m3fn", shape, 1) for shape in shapes),
        *(ExpertTensor("float32", (rows // block, of // block), 4) for rows, of in shapes),
    )


MODELS = (
    ExpertSizes("DeepSeek-V2-Lite", 26, 80, _gated(2048, 1408)),
    ExpertSizes("Qwen3-235B", 94, 144, _gated(4096, 1536)),
    ExpertSizes("DeepSeek-V3", 58, 288, _gated_blocks(7168, 2048, 128)),
)
"""The sizes are those of each model's ``config.json``."""


def parse_expert_sizes(text: str) -> ExpertSizes:
    """Read a model's name, or the bytes of an expert's tensors as ``BYTES+BYTES``.

    Raises:
        ValueError: Neither, or bytes that are no multiple of 8.
    """
    for model in MODELS:
        if model.name.lower() == text.lower():
            return model
    if not re.fullmatch(r"\d+(\+\d+)*", text):
        raise ValueError(
            f"shape {text!r} is neither one of {', '.join(model.name for model in MODELS)} nor the "
            "bytes of an expert's tensors, such as 11534336+5767168"
        )
    sizes = [int(size) for size in text.split("+")]
    if any(size < 1 or size % _WORD for size in sizes):
        raise ValueError(f"shape {text!r}: every tensor has a multiple of {_WORD} bytes")
    return ExpertSizes(text, 4, 16, tuple(ExpertTensor("uint8", (size,), 1) for size in sizes))
