# SPDX-License-Identifier: Apache-2.0
"""Models whose experts move, or the part of one on a pipeline stage, and what people call them."""

from collections.abc import Sequence
from typing import NamedTuple


class MovedModel(NamedTuple):
    """What tells it from others; sorted, all stages of the served model come first."""

    model_index: int
    """0: the model that is served; a drafter follows."""
    stage: int
    """Of the pipeline."""
    name: str
    """Before vLLM 0.32 a drafter has that of its target."""


def labels(models: Sequence[MovedModel]) -> list[str]:
    """The name of each, and what else is needed to tell it from the others."""
    targets = {model.name for model in models if model.model_index == 0}
    stages = {model.stage for model in models}
    return [
        model.name
        + (" (drafter)" if model.model_index and model.name in targets else "")
        + (f", stage {model.stage}" if len(stages) > 1 else "")
        for model in models
    ]
