# SPDX-License-Identifier: Apache-2.0
"""Compare the answers of arm ``off`` with greedy decoding by transformers."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eval.config.schema import Config
from eval.errors import OracleError
from eval.results.oracle_result import OracleResult
from eval.results.oracle_texts import OracleAnswers, OracleRequest
from eval.results.samples import Sample
from eval.serving.failure.cause import find_cause
from eval.serving.process import ChildProcess, last_lines


def compare_with_oracle(
    config: Config, samples: Sequence[Sample], folder: Path, console: Console
) -> OracleResult:
    """Decode the first prompts of ``samples`` again, in another process.

    Args:
        config: Model, first task, number of prompts and of tokens.
        samples: Of arm ``off``.
        folder: Gets request, answers and log.
        console: Shows that something is going on.

    Raises:
        OracleError: The process failed; has the end of its log.
    """
    first = [sample for sample in samples if sample.task == config.tasks[0].name]
    compared = first[: config.oracle.prompts]
    started = time.monotonic()
    with console.status(f"oracle: {len(compared)} prompts with transformers in float32"):
        texts = _decode(config, compared, folder)
    different = [
        sample.doc_id for sample, text in zip(compared, texts, strict=True) if sample.text != text
    ]
    return OracleResult(
        prompts=len(compared),
        identical=len(compared) - len(different),
        different=different,
        seconds=time.monotonic() - started,
    )


def _decode(config: Config, samples: Sequence[Sample], folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    request = OracleRequest(
        model=config.model,
        prompts=[sample.prompt for sample in samples],
        stop=samples[0].stop,
        max_tokens=config.tasks[0].max_tokens,
    )
    request_file, answers_file = folder / "request.json", folder / "answers.json"
    request_file.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "eval.oracle.decoding", str(request_file), str(answers_file)]
    log = folder / "oracle.log"
    with ChildProcess(command, config.serve.environment, log) as process:
        status = process.wait()
    if status != 0:
        raise OracleError(_why(status, log))
    return OracleAnswers.model_validate_json(answers_file.read_bytes()).texts


def _why(status: int, log: Path) -> str:
    cause = find_cause(log.read_text(encoding="utf-8", errors="replace"))
    failed = f"oracle: decoding by transformers failed (exit status {status})"
    next_step = "Set oracle.prompts to 0 for a model that transformers cannot load"
    if cause is None:
        return f"{failed}. {next_step}\nThe end of its log {log}:\n{last_lines(log)}"
    where = f"Its log: {log}, line {cause.line}"
    return "\n".join([f"{failed}: {cause.text}. {next_step}", where, *cause.context])
