# SPDX-License-Identifier: Apache-2.0
"""Questions of lm-eval, sent to a server: one attempt each, and an answer is what it has to be."""

import asyncio
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
from lm_eval.models.openai_completions import LocalCompletionsAPI
from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm  # type: ignore[import-untyped]

from eval.errors import EvaluationError
from eval.load.batches import ALL_AT_ONCE, Asked, Batches
from eval.results.samples import Tokens
from eval.secrets import SECRETS
from eval.serving.failure.refusals import STOPPED_ANSWERING, happened_with, status_in_words

_MOST_BYTES = 2**24
_SHOWN = 200
_UNREADABLE = "the server gave an answer that cannot be read"
_CUT_OFF = ("abort", "error")


class Progress(NamedTuple):
    """What stands beside the bar while questions are asked."""

    label: str
    """Of the bar."""
    says: Callable[[], str]
    """After each answer: what else is worth knowing."""


_SILENT = Progress("questions", lambda: "")


class RequestError(EvaluationError):
    """A question got no answer."""

    def __init__(self, happened: str, message: str) -> None:
        super().__init__(message)
        self.happened = happened
        """In general, such as that the server stopped answering."""


class _Logprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]

    def as_tokens(self) -> Tokens:
        """Each is written as ``token_id:17``."""
        ids = [int(token.removeprefix("token_id:")) for token in self.tokens]
        return Tokens(ids=ids, logprobs=self.token_logprobs)


class _Choice(BaseModel):
    text: str
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(BaseModel):
    """Of a server's answer, what is used."""

    choices: list[_Choice] = Field(min_length=1, max_length=1)


class Completions(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's ``local-completions`` with its payload, and a client of its own.

    No proxy, ``.netrc`` or key of the environment is used, and no redirect is followed: prompts and
    keys go to the server only.
    """

    def __init__(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str],
        concurrency: int,
        timeout: float,
        seed: int,
        logprobs: bool = False,
        progress: Progress = _SILENT,
        batches: Batches = ALL_AT_ONCE,
    ) -> None:
        """Prepare, without asking.

        Args:
            name: Of the model, to the server.
            url: Of the server.
            headers: Of every request.
            concurrency: Questions at the same time.
            timeout: Seconds for one answer.
            seed: Of every request.
            logprobs: Ask for every token of an answer and its log-probability, too.
            progress: Shown while questions are asked.
            batches: Of questions, and whether the next one is asked.
        """
        # Without a tokenizer backend the prompts go as text and the server adds what its own
        # tokenizer adds; lm-eval's default would ask the server for one, or load one itself.
        super().__init__(model=name, base_url=url, tokenizer_backend=None, seed=seed)
        self._headers = dict(headers)
        self._at_once = concurrency
        self._seconds = timeout
        self._progress = progress
        self._batches = batches
        # None beside the one that was chosen.
        self._asked_too = {"logprobs": 0, "return_tokens_as_token_ids": True} if logprobs else {}
        self.tokens: dict[int, Tokens] = {}
        """Of each question (``doc_id``), where they are asked for."""
        self.asked = Asked([], 0.0, 0.0)

    def generate_until(self, instances: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Ask, the longest prompt of a batch first, as lm-eval does.

        Returns:
            Answers in the order of ``instances``; empty texts for those that are not asked.
        """
        self.asked = Asked([], time.time(), time.time())
        # What is not given is read from the environment.
        settings = {"disable": True} if disable_tqdm else {}
        with tqdm(total=len(instances), desc=self._progress.label, **settings) as bar:

            def answered() -> None:
                bar.set_postfix_str(self._progress.says(), refresh=False)
                bar.update()

            for batch in self._batches.of(instances):
                texts = [*self.asked.texts, *asyncio.run(self._ask_all(batch, answered))]
                self.asked = self.asked._replace(texts=texts, finished=time.time())
                if len(texts) < len(instances) and self._batches.enough(self.asked):
                    break
        return [*self.asked.texts, *[""] * (len(instances) - len(self.asked.texts))]

    async def _ask_all(self, instances: Sequence[Any], answered: Callable[[], object]) -> list[str]:
        order = sorted(range(len(instances)), key=lambda index: -len(instances[index].args[0]))
        waiting = iter(order)
        answers = [""] * len(instances)
        async with httpx.AsyncClient(
            headers=self._headers, timeout=None, trust_env=False
        ) as client:

            async def ask_on() -> None:
                for index in waiting:
                    answers[index] = await self._ask(client, instances[index])
                    answered()

            await _until_done_or_failed([ask_on() for _ in range(self._at_once)])
        return answers

    async def _ask(self, client: httpx.AsyncClient, instance: Any) -> str:
        prompt, settings = instance.args
        payload = self._create_payload(
            prompt, generate=True, gen_kwargs=copy.deepcopy(settings), seed=self._seed
        )
        payload.update(self._asked_too)
        question = f"question {instance.doc_id}"
        try:
            status, body = await asyncio.wait_for(
                _post(client, f"{self.base_url}/v1/completions", payload), self._seconds
            )
        except asyncio.TimeoutError as error:
            raise RequestError(
                STOPPED_ANSWERING,
                f"{question}: no answer within request_timeout, {self._seconds:g} s",
            ) from error
        except httpx.HTTPError as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise RequestError(
                STOPPED_ANSWERING, f"{question}: the request failed ({text})"
            ) from error
        choice = _choice_of(question, status, body)
        if self._asked_too:
            self.tokens[instance.doc_id] = _tokens_of(question, choice)
        return choice.text


async def _until_done_or_failed(asking: Sequence[Any]) -> None:
    """The first that fails ends the others."""
    tasks = [asyncio.create_task(one) for one in asking]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _post(client: httpx.AsyncClient, url: str, payload: Any) -> tuple[int, bytes]:
    body = bytearray()
    async with client.stream("POST", url, json=payload) as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MOST_BYTES:
                break
        return response.status_code, bytes(body)


def _choice_of(question: str, status: int, body: bytes) -> _Choice:
    """The answer in what a server sent.

    Raises:
        RequestError: It is none; shows the status and the beginning of ``body``.
    """
    if status != HTTPStatus.OK:
        raise RequestError(
            happened_with(status), f"{question}: status {status_in_words(status)}{_beginning(body)}"
        )
    if len(body) > _MOST_BYTES:
        raise RequestError(
            _UNREADABLE, f"{question}: more than {_MOST_BYTES >> 20} MiB{_beginning(body)}"
        )
    try:
        [choice] = _Completion.model_validate_json(body).choices
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise RequestError(
            _UNREADABLE, f"{question}: {where and f'{where}: '}{problem['msg']}{_beginning(body)}"
        ) from error
    if choice.finish_reason in _CUT_OFF:
        raise RequestError(
            STOPPED_ANSWERING, f"{question}: the answer ended with {choice.finish_reason!r}"
        )
    if SECRETS.known_in(choice.text):
        raise RequestError(
            _UNREADABLE, f"{question}: the answer has a secret in it, it is not kept"
        )
    return choice


def _tokens_of(question: str, choice: _Choice) -> Tokens:
    try:
        if choice.logprobs is not None:
            return choice.logprobs.as_tokens()
        problem = "no logprobs"
    except ValueError as error:
        problem = str(error)
    raise RequestError(_UNREADABLE, f"{question}: {problem}, and tasks.logprobs asks for them")


def _beginning(body: bytes) -> str:
    text = " ".join(body[: 4 * _SHOWN].decode(errors="replace").split())
    if not text:
        return ", and nothing else"
    return f": {text[:_SHOWN]}{'...' * (len(text) > _SHOWN)}"
