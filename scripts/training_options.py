# SPDX-License-Identifier: Apache-2.0
"""What determines the weights of a trained model, with the values of gsm-tiny."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from gsm_tiny_sequences import VOCABULARY_SIZE
from tiny_deepseek import Options as Shape
from tiny_deepseek import model_config


class TrainingError(ValueError):
    """Training that cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What determines the trained weights, besides the texts."""

    vocabulary_size: ClassVar[int] = VOCABULARY_SIZE

    seed: int = 0
    steps: int = 1200
    batch_size: int = 128
    """Sequences."""
    sequence_length: int = 640
    """Tokens: of word problems a prompt with five solved ones, and the answer."""
    learning_rate: float = 3e-3
    """At its highest."""
    warmup_steps: int = 200
    weight_decay: float = 0.1
    layers: int = 6
    experts: int = 16
    experts_per_token: int = 4
    hidden_size: int = 192
    intermediate_size: int = 384
    moe_intermediate_size: int = 96

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "sequence_length", "warmup_steps"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise TrainingError(f"{flag} is 1 or more, not {getattr(self, name)}")

    def config(self) -> dict[str, Any]:
        """The model's `config.json`.

        Raises:
            OptionError: A size that the model cannot have.
        """
        names = {one.name for one in fields(Shape)} & {one.name for one in fields(self)}
        shape = Shape(**{name: getattr(self, name) for name in names})
        sizes = {"torch_dtype": "bfloat16", "vocab_size": self.vocabulary_size}
        return {**model_config(shape), **sizes}
