# SPDX-License-Identifier: Apache-2.0
"""The comparison with transformers, made again from the answers that were kept."""

from collections.abc import Sequence
from pathlib import Path

from eval.config.schema import Config
from eval.errors import GateError
from eval.results.folder import RunFolder
from eval.results.json_files import read_model
from eval.results.oracle_result import OracleResult
from eval.results.oracle_texts import OracleAnswers, OracleRequest
from eval.results.samples import Sample


def read_oracle(folder: RunFolder, config: Config, off: Sequence[Sample]) -> OracleResult | None:
    """How many answers of arm ``off`` are those of transformers; None: its answers are not kept.

    Args:
        folder: Of the run.
        config: Of the run, without the tasks that were left out.
        off: All answers of arm ``off``.

    Raises:
        EvaluationError: A file cannot be read, or is of other prompts than those of arm ``off``.
    """
    kept = folder.oracle()
    request_file, answers_file = folder.oracle_texts()
    if kept is None or not request_file.is_file() or not answers_file.is_file():
        return None
    request = read_model(OracleRequest, request_file)
    texts = read_model(OracleAnswers, answers_file).texts
    task = config.tasks[0]
    asked = sorted((one for one in off if one.task == task.name), key=lambda one: one.doc_id)
    compared = asked[: len(request.prompts)]
    _require_same(request_file, request, config, compared)
    if len(texts) != len(compared):
        raise GateError(f"{answers_file} has {len(texts)} answers to {len(compared)} prompts")
    different = [one.doc_id for one, text in zip(compared, texts, strict=True) if one.text != text]
    found = kept.model_copy(
        update={
            "prompts": len(compared),
            "identical": len(compared) - len(different),
            "different": different,
        }
    )
    if found != kept:
        raise GateError(
            f"{folder.oracle_file} tells of {kept.identical} of {kept.prompts} identical "
            f"answers, but {answers_file} and the answers of arm off give {found.identical} of "
            f"{found.prompts}: one of them was changed or is of another run"
        )
    return found


def _require_same(
    file: Path, request: OracleRequest, config: Config, compared: Sequence[Sample]
) -> None:
    if request.prompts != [one.prompt for one in compared]:
        raise GateError(f"{file} has other prompts than arm off: it is of another run")
    stop = compared[0].stop if compared else []
    if (request.model, request.max_tokens, request.stop) != (
        config.model,
        config.tasks[0].max_tokens,
        stop,
    ):
        raise GateError(f"{file} is of another model, or of other limits of an answer")
