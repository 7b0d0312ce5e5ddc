# SPDX-License-Identifier: Apache-2.0
"""Put the questions to a server through lm-eval and keep every answer."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import lm_eval
import requests
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.utils import hash_string
from pydantic import BaseModel

from eval.config.schema import Task, TaskName
from eval.errors import EvaluationError
from eval.load.lm_eval_tasks import task_definition, task_manager
from eval.load.question_files import Files
from eval.results.samples import Sample
from eval.results.schema import Seeds, TaskRun

SEEDS = Seeds(random=0, numpy=1234, torch=1234, fewshot=1234, request=1234)

# When one request fails, lm-eval drops the others' failures unread, and asyncio would print each
# with its traceback. The failure that counts is raised.
logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)

_STRICT = "strict-match"
_FLEXIBLE = "flexible-extract"


class RequestError(EvaluationError):
    """A question got no answer."""


class Answers(BaseModel):
    """All answers to one task and lm-eval's summary of them."""

    samples: list[Sample]
    summary: TaskRun
    started: float
    """The first question was sent, in Unix seconds."""
    finished: float
    """The last answer was received, in Unix seconds."""


class _TimedCompletions(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's ``local-completions``, which remembers when it asked."""

    started = 0.0
    finished = 0.0

    def generate_until(self, instances: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.started = time.time()
        answers: list[str] = super().generate_until(instances, disable_tqdm)
        self.finished = time.time()
        return answers


def ask(model: str, task: Task, url: str, files: Files | None, log: Path) -> Answers:
    """Ask all questions of one task.

    Args:
        model: As the server names it.
        task: Which questions.
        url: Of the server.
        files: Of this task, from `eval.load.question_files.find_questions`.
        log: Gets what lm-eval has to say.

    Raises:
        RequestError: A request failed or took longer than ``task.request_timeout``.
    """
    completions = _completions(model, url, task)
    manager = task_manager()
    with _log_to(log):
        try:
            output = lm_eval.simple_evaluate(
                model=completions,
                tasks=[task_definition(manager, task, files)],
                task_manager=manager,
                limit=task.questions,
                random_seed=SEEDS.random,
                numpy_random_seed=SEEDS.numpy,
                torch_random_seed=SEEDS.torch,
                fewshot_random_seed=SEEDS.fewshot,
            )
        except (asyncio.TimeoutError, requests.Timeout) as error:
            raise RequestError(
                f"{task.name}: no answer within request_timeout, {task.request_timeout} s"
            ) from error
        except (aiohttp.ClientError, requests.RequestException, ConnectionError) as error:
            # What aiohttp knows of a response fills a page when it is shown by repr.
            text = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            raise RequestError(f"{task.name}: a request failed ({text}); see {log}") from error
    return Answers(
        samples=_samples(task.name, output["samples"][task.name]),
        summary=_summary(task, output),
        started=completions.started,
        finished=completions.finished,
    )


def _completions(model: str, url: str, task: Task) -> _TimedCompletions:
    # Without a tokenizer backend the prompts go as text and the server adds what its own
    # tokenizer adds; lm-eval's default would ask the server for one, or load one itself.
    return _TimedCompletions(
        model=model,
        base_url=f"{url}/v1/completions",
        tokenizer_backend=None,
        num_concurrent=task.concurrency,
        # One attempt: a second one would hide that a server stops answering.
        max_retries=1,
        timeout=task.request_timeout,
        seed=SEEDS.request,
    )


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send what lm-eval logs to a file, away from the terminal."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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


def _summary(task: Task, output: Mapping[str, Any]) -> TaskRun:
    rows = output["samples"][task.name]
    metrics = output["results"][task.name]
    hashes = [row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows]
    return TaskRun(
        name=task.name,
        scored=task.scored,
        questions=len({row["doc_id"] for row in rows}),
        task_hash=hash_string("".join(hashes)),
        task_version=output["versions"][task.name],
        accuracy=metrics[f"exact_match,{_STRICT}"],
        accuracy_stderr=_number(metrics[f"exact_match_stderr,{_STRICT}"]),
        accuracy_flexible=metrics[f"exact_match,{_FLEXIBLE}"],
        accuracy_flexible_stderr=_number(metrics[f"exact_match_stderr,{_FLEXIBLE}"]),
    )


def _samples(task: TaskName, rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """lm-eval has one row for each question and filter; here a question is one sample."""
    by_filter = {
        name: sorted((row for row in rows if row["filter"] == name), key=_doc_id)
        for name in (_STRICT, _FLEXIBLE)
    }
    pairs = zip(by_filter[_STRICT], by_filter[_FLEXIBLE], strict=True)
    return [_sample(task, strict, flexible) for strict, flexible in pairs]


def _doc_id(row: Mapping[str, Any]) -> int:
    doc_id: int = row["doc_id"]
    return doc_id


def _sample(task: TaskName, strict: Mapping[str, Any], flexible: Mapping[str, Any]) -> Sample:
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
        target=strict["target"],
        strict_match=strict["filtered_resps"][0],
        strict_correct=bool(strict["exact_match"]),
        flexible_extract=flexible["filtered_resps"][0],
        flexible_correct=bool(flexible["exact_match"]),
    )


def _number(value: Any) -> float | None:
    """lm-eval writes N/A where one question gives no standard error."""
    return float(value) if isinstance(value, int | float) else None
