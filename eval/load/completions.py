# SPDX-License-Identifier: Apache-2.0
"""Completions, streamed or whole: the one client of latency, stress and throughput."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError, aconnect_sse
from pydantic import BaseModel, JsonValue, ValidationError

from eval.errors import EvaluationError

_SHOWN = 300
"""Characters of what a server sent, in a message."""
_DONE = "[DONE]"
_PATH = "/v1/completions"
_RANK = "X-data-parallel-rank"
"""Header of vLLM's server."""


class CompletionError(EvaluationError):
    """A completion did not come, or not as one."""


class _Choice(BaseModel):
    text: str | None = None


class Usage(BaseModel):
    """What a server says of one completion."""

    completion_tokens: int
    """That it generated."""
    prompt_tokens: int = 0
    """That it read; vLLM always says so."""


class _Chunk(BaseModel):
    """One event of a stream, as vLLM writes it; what is not used here is not looked at."""

    choices: list[_Choice]
    usage: Usage | None = None


def new_client(
    url: str,
    headers: Mapping[str, str] | None,
    timeout: float | None,
    data_parallel_rank: int | None = None,
) -> httpx.AsyncClient:
    """A client for one server of this machine, which no proxy of the environment comes between.

    Args:
        url: Of the server.
        headers: Sent with every request, such as the key that the server wants.
        timeout: Seconds without anything from the server; None: however long it takes.
        data_parallel_rank: That has to answer; None: the one that the server chooses.
    """
    chosen = {} if data_parallel_rank is None else {_RANK: str(data_parallel_rank)}
    # As many requests at a time as are asked: of the default hundred, the others would wait.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(
        base_url=url,
        headers={**(headers or {}), **chosen},
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        limits=limits,
    )


async def stream_completion(
    client: httpx.AsyncClient, request: Mapping[str, JsonValue], arrived: Callable[[], None]
) -> Usage:
    """Ask for one completion of ``max_tokens`` tokens, whatever the model would end it with.

    Args:
        client: From `new_client`.
        request: Model, prompt, max_tokens and how to sample.
        arrived: Called for each piece of text, of one token or of those that came together.

    Returns:
        The tokens that the server says it read and generated.

    Raises:
        CompletionError: What came is no stream of a completion, or nothing came.
    """
    whole = {
        **request,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with _told_as_one_error():
        async with aconnect_sse(client, "POST", _PATH, json=whole) as source:
            return await _read(source, arrived)


async def whole_completion(client: httpx.AsyncClient, request: Mapping[str, JsonValue]) -> Usage:
    """Ask for one completion, as `stream_completion` does, that comes when all of it is there.

    Raises:
        CompletionError: What came is no completion, or nothing came.
    """
    with _told_as_one_error():
        response = await client.post(_PATH, json={**request, "ignore_eos": True})
    _require_success(response)
    usage = _parse(response.text).usage
    if usage is None:
        raise CompletionError("a completion came without how many tokens it has")
    return usage


@contextmanager
def _told_as_one_error() -> Iterator[None]:
    try:
        yield
    except httpx.LocalProtocolError as error:
        # Its text quotes headers, and with them a key.
        raise CompletionError("a request could not be sent: it is not HTTP") from error
    except httpx.HTTPError as error:
        said = f": {error}" if str(error) else ""
        raise CompletionError(f"a request failed: {type(error).__name__}{said}") from error


def require_tokens(generated: int, asked: int) -> None:
    """Refuse a completion that is shorter than was asked for.

    Raises:
        CompletionError: It is.
    """
    if generated < asked:
        raise CompletionError(
            f"a completion has {generated} of {asked} tokens: the server ended it"
        )


async def until_all_are_done(
    asking: Sequence[Coroutine[Any, Any, None]],
    watching: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Wait for all that ask, not for those that watch; the first that fails ends all."""
    watchers = {asyncio.create_task(one) for one in watching}
    waiting = watchers | {asyncio.create_task(one) for one in asking}
    try:
        while waiting - watchers:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            # Every one is asked, or asyncio complains of those that nobody did.
            failed = [error for task in done if (error := task.exception()) is not None]
            if failed:
                raise failed[0]
    finally:
        # Before the client is closed: requests under way would fail then, and say only that.
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _read(source: EventSource, arrived: Callable[[], None]) -> Usage:
    response = source.response
    if not response.is_success:
        await response.aread()
    _require_success(response)
    usage: Usage | None = None
    chunks = 0
    try:
        async for event in source.aiter_sse():
            if event.data == _DONE:
                continue  # To the end: a connection that was read to it is used again.
            chunk = _parse(event.data)
            if chunk.choices:
                chunks += 1
                arrived()
            usage = chunk.usage or usage
    except SSEError as error:
        raise CompletionError(f"a request was answered with no stream: {error}") from error
    if usage is None:
        raise CompletionError(
            f"a stream was cut after {chunks} pieces: how many tokens it has was not told"
        )
    return usage


def _require_success(response: httpx.Response) -> None:
    if not response.is_success:
        raise CompletionError(
            f"a request failed with {response.status_code}: {_short(response.text)}"
        )


def _parse(data: str) -> _Chunk:
    try:
        return _Chunk.model_validate_json(data)
    except ValidationError as error:
        raise CompletionError(
            f"a request failed, the server streamed no completion: {_short(data)}"
        ) from error


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
