# SPDX-License-Identifier: Apache-2.0
"""Put the questions to a server through lm-eval and keep every answer."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import lm_eval
from datasets.exceptions import DatasetsError
from lm_eval.utils import hash_string
from pydantic import BaseModel

from eval.config.schema import Task, TaskName
from eval.errors import DatasetError
from eval.load.batches import ALL_AT_ONCE, Batches
from eval.load.lm_eval_tasks import task_definition, task_manager
from eval.load.question_client import Completions, Progress, RequestError
from eval.preflight.hub import first_line
from eval.preflight.question_files import Files
from eval.results.samples import Sample, Tokens
from eval.results.schema import TaskRun
from eval.results.surroundings import Seeds
from eval.secrets import SECRETS

SEEDS = Seeds(random=0, numpy=1234, torch=1234, fewshot=1234, request=1234)

_STRICT = "strict-match"
_FLEXIBLE = "flexible-extract"


class Answers(BaseModel):
    """Answers to one task and their summary, which is lm-eval's where all were asked."""

    samples: list[Sample]
    summary: TaskRun
    started: float
    """The first question was sent, in Unix seconds."""
    finished: float
    """The last answer was received, in Unix seconds."""


def ask(
    name: str,
    task: Task,
    url: str,
    headers: Mapping[str, str],
    files: Files | None,
    log: Path,
    progress: Progress,
    batches: Batches = ALL_AT_ONCE,
) -> Answers:
    """Ask the questions of one task, with the prompts that all of them have.

    Args:
        name: Of the model, to the server.
        task: Which questions.
        url: Of the server.
        headers: Of every request.
        files: Of this task, from `eval.preflight.question_files.find_questions`.
        log: Gets what lm-eval has to say.
        progress: What the bar says beside its count.
        batches: Of questions, and whether the next one is asked.

    Raises:
        RequestError: A question got no answer, or not within ``task.request_timeout``.
        DatasetError: The questions cannot be read.
    """
    completions = Completions(
        name,
        url,
        headers,
        task.concurrency,
        task.request_timeout,
        SEEDS.request,
        task.logprobs,
        progress,
        batches,
    )
    manager = task_manager()
    with _log_to(log), TemporaryDirectory(dir=log.parent, prefix="questions-") as cache:
        try:
            output = lm_eval.simple_evaluate(
                model=completions,
                tasks=[task_definition(manager, task, files, Path(cache))],
                task_manager=manager,
                limit=task.limit,
                random_seed=SEEDS.random,
                numpy_random_seed=SEEDS.numpy,
                torch_random_seed=SEEDS.torch,
                fewshot_random_seed=SEEDS.fewshot,
            )
        except DatasetsError as error:
            reason = error.__cause__ or error
            raise DatasetError(
                f"{task.name}: the questions cannot be read ({first_line(reason)})"
            ) from error
        except RequestError as error:
            raise RequestError(error.happened, f"{task.name}, {error}") from error
    asked = completions.asked
    rows = [row for row in output["samples"][task.name] if _doc_id(row) < len(asked.texts)]
    return Answers(
        samples=_samples(task.name, rows, completions.tokens),
        summary=_summary(task, output, rows),
        started=asked.started,
        finished=asked.finished,
    )


class _HidingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return SECRETS.hide(super().format(record))


class _LogFile(logging.FileHandler):
    """A full disk costs lines of this log; that answers cannot be kept tells of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave a line out."""


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send what lm-eval logs to a file, away from the terminal."""
    handler = _LogFile(path)
    handler.setFormatter(_HidingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("lm_eval")
    propagate, level = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        logger.setLevel(level)
        handler.close()


def _summary(task: Task, output: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> TaskRun:
    hashes = [row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows]
    whole = len(rows) == len(output["samples"][task.name])
    strict, flexible = (
        _share(output["results"][task.name], name)
        if whole
        else _share_of([row["exact_match"] for row in rows if row["filter"] == name])
        for name in (_STRICT, _FLEXIBLE)
    )
    return TaskRun(
        name=task.name,
        scored=task.scored,
        questions=len({row["doc_id"] for row in rows}),
        task_hash=hash_string("".join(hashes)),
        task_version=output["versions"][task.name],
        accuracy=strict.value,
        accuracy_stderr=strict.stderr,
        accuracy_flexible=flexible.value,
        accuracy_flexible_stderr=flexible.stderr,
    )


class _Share(NamedTuple):
    """Of right answers, with its standard error."""

    value: float
    stderr: float | None


def _share(metrics: Mapping[str, Any], name: str) -> _Share:
    return _Share(metrics[f"exact_match,{name}"], _number(metrics[f"exact_match_stderr,{name}"]))


def _share_of(right: Sequence[float]) -> _Share:
    """As lm-eval computes it, of some of the questions."""
    share = sum(right) / len(right)
    return _Share(share, math.sqrt(share * (1 - share) / (len(right) - 1)))


def _samples(
    task: TaskName, rows: Sequence[Mapping[str, Any]], tokens: Mapping[int, Tokens]
) -> list[Sample]:
    """lm-eval has one row for each question and filter; here a question is one sample."""
    by_filter = {
        name: sorted((row for row in rows if row["filter"] == name), key=_doc_id)
        for name in (_STRICT, _FLEXIBLE)
    }
    pairs = zip(by_filter[_STRICT], by_filter[_FLEXIBLE], strict=True)
    return [
        _sample(task, strict, flexible, tokens.get(_doc_id(strict))) for strict, flexible in pairs
    ]


def _doc_id(row: Mapping[str, Any]) -> int:
    doc_id: int = row["doc_id"]
    return doc_id


def _sample(
    task: TaskName, strict: Mapping[str, Any], flexible: Mapping[str, Any], tokens: Tokens | None
) -> Sample:
    prompt, generation = strict["arguments"][0]
    return Sample(
        task=task,
        doc_id=strict["doc_id"],
        doc_hash=strict["doc_hash"],
        prompt_hash=strict["prompt_hash"],
        target_hash=strict["target_hash"],
        prompt=prompt,
        stop=generation["until"],
        text=strict["resps"][0][0],
        tokens=tokens,
        target=strict["target"],
        strict_match=strict["filtered_resps"][0],
        strict_correct=bool(strict["exact_match"]),
        flexible_extract=flexible["filtered_resps"][0],
        flexible_correct=bool(flexible["exact_match"]),
    )


def _number(value: Any) -> float | None:
    """lm-eval writes N/A where one question gives no standard error."""
    return float(value) if isinstance(value, int | float) else None
