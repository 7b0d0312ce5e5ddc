# SPDX-License-Identifier: Apache-2.0
"""Recorded accuracies (recorded_accuracies/TASK.yaml), and how far below one a run may be."""

import math
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from scipy.special import ndtr, ndtri

from eval.config.schema import Config, Task, TaskName
from eval.config.yaml_files import read_yaml
from eval.errors import ConfigError, GateError

_FOLDER = Path(__file__).parent / "recorded_accuracies"

_Probability = Annotated[float, Field(gt=0, lt=1)]


class RecordedAccuracy(BaseModel):
    """What a model scored before, without EPLB."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A name on the Hub, or the last part of a folder's path."""
    dtype: list[str]
    """Values of ``serve.options.dtype`` that mean this one; ``auto``: none is set."""
    fewshot: int
    questions: PositiveInt
    accuracy: Annotated[float, Field(ge=0, le=100)]
    """Strict match, in percent."""
    source: str
    """Where the number is from."""
    alpha: _Probability = 0.05
    """Share of runs without a loss that may be below the threshold."""
    beta: _Probability = 0.2
    """Share of runs with the detectable loss that may be above it."""
    sigma: Annotated[float, Field(gt=0)] = 50
    """Standard deviation of one answer's score, in points: 50 where half of the answers are right,
    less elsewhere."""


class Threshold(NamedTuple):
    """Of a test against a recorded accuracy."""

    accuracy: float
    """The lowest that passes, in percent."""
    detectable: float
    """Points below the recorded accuracy that are noticed with probability 1 - beta."""
    alpha: float


def threshold(recorded: RecordedAccuracy, questions: int) -> Threshold:
    """The threshold of TensorRT-LLM's accuracy tests, tests/integration/defs/accuracy/README.md.

    A one-sided z-test of two independent samples: both accuracies are taken as uncertain.
    """
    scale = recorded.sigma * math.sqrt(1 / max(questions, 1) + 1 / recorded.questions)
    below = -float(ndtri(recorded.alpha)) * scale
    return Threshold(
        accuracy=recorded.accuracy - below,
        detectable=below - float(ndtri(recorded.beta)) * scale,
        alpha=recorded.alpha,
    )


def paired_threshold(
    recorded: RecordedAccuracy, independent: Threshold, questions: int, flips: float
) -> Threshold:
    """What ``independent`` amounts to when the recorded run had the same questions.

    Then the two differ by the answers that flip, not by the questions.

    Args:
        recorded: The recorded accuracy.
        independent: From `threshold`.
        questions: In this run.
        flips: Share of answers that are right in one of two runs only; at least one answer's.
    """
    questions = max(questions, 1)
    scale = 100 * math.sqrt(max(flips, 1 / questions) / questions)
    below = recorded.accuracy - independent.accuracy
    return Threshold(
        accuracy=independent.accuracy,
        detectable=below - float(ndtri(recorded.beta)) * scale,
        alpha=float(ndtr(-below / scale)),
    )


def recorded_accuracies(
    config: Config, folder: Path = _FOLDER
) -> dict[TaskName, RecordedAccuracy | None]:
    """The recorded accuracy of every scored task, if the gate asks for it.

    Raises:
        GateError: A file is no list of recorded accuracies.
    """
    if not config.gate.recorded_accuracy:
        return {}
    return {
        task.name: recorded_accuracy(config, task, folder) for task in config.tasks if task.scored
    }


def recorded_accuracy(config: Config, task: Task, folder: Path) -> RecordedAccuracy | None:
    """The accuracy recorded for the model, dtype, shots and, if there are several, questions.

    Raises:
        GateError: The file is no list of recorded accuracies.
    """
    dtype = str(config.serve.options.get("dtype", "auto"))
    found = [
        entry
        for entry in _read(task.name, folder)
        if dtype in entry.dtype
        and entry.fewshot == task.fewshot
        and (entry.model == config.model or Path(config.model).name == entry.model)
    ]
    same = [entry for entry in found if entry.questions == task.limit]
    return next(iter(same or sorted(found, key=lambda entry: -entry.questions)), None)


def _read(task: TaskName, folder: Path) -> list[RecordedAccuracy]:
    file = folder / f"{task}.yaml"
    if not file.exists():
        return []
    try:
        return [RecordedAccuracy.model_validate(entry) for entry in read_yaml(file)]
    except (ConfigError, TypeError, ValidationError) as error:
        raise GateError(f"{file} is no list of recorded accuracies: {error}") from error
