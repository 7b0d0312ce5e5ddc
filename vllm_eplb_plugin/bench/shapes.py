# SPDX-License-Identifier: Apache-2.0
"""The sizes of models that benchmarks are made for."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A shape is a model's experts and the ranks that hold them."""

    name: str
    layers: int
    logical: int
    redundant: int
    groups: int = 1
    nodes: int = 1
    ranks: int = 1

    def __post_init__(self) -> None:
        for field in ("layers", "logical", "groups", "nodes", "ranks"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} is {getattr(self, field)}, not 1 or more")
        for name, divisor in (("logical", "groups"), ("slots", "ranks"), ("ranks", "nodes")):
            if getattr(self, name) % getattr(self, divisor):
                raise ValueError(
                    f"{self.name}: {getattr(self, name)} {name} are not divisible by "
                    f"{getattr(self, divisor)} {divisor}"
                )

    @property
    def slots(self) -> int:
        """The number of physical experts in a layer."""
        return self.logical + self.redundant

    def __str__(self) -> str:
        if _PATTERN.fullmatch(self.name):
            return self.name
        return f"{self.name} {self.layers} x {self.logical}+{self.redundant}"


SHAPES = (
    Shape("DeepSeek-V2-Lite", 26, 64, 16, ranks=2),
    Shape("Qwen3-30B", 48, 128, 16, ranks=8),
    Shape("DeepSeek-V3", 58, 256, 32, groups=8, nodes=4, ranks=32),
    Shape("Kimi-K2", 60, 384, 64, nodes=4, ranks=32),
)

_PATTERN = re.compile(r"(\d+)x(\d+)\+(\d+)(?:/(\d+)x(\d+)x(\d+))?")


def parse_shape(text: str) -> Shape:
    """Read ``LAYERSxLOGICAL+REDUNDANT``, with ``/GROUPSxNODESxRANKS`` where a plan needs them, or
    the name of one of `SHAPES`.

    Raises:
        ValueError: Neither, or numbers that cannot be.
    """
    for shape in SHAPES:
        if shape.name.lower() == text.lower():
            return shape
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"shape {text!r} is neither LAYERSxLOGICAL+REDUNDANT[/GROUPSxNODESxRANKS], such as "
            f"58x256+32/8x4x32, nor one of {', '.join(shape.name for shape in SHAPES)}"
        )
    return Shape(text, *(int(number) for number in match.groups(default="1")))
