# SPDX-License-Identifier: Apache-2.0
"""Completions streamed side by side, and when each of their tokens arrived."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from pydantic import JsonValue

from eval.load.completions import (
    new_client,
    stream_completion,
    until_all_are_done,
    whole_completion,
)

TIMEOUT_SECONDS = 600
"""Without anything from the server."""


@dataclass
class Stream:
    """One completion."""

    prompt: str | Sequence[int]
    """Text, or token ids."""
    arrived: list[float] = field(default_factory=list)
    """When its tokens did, in Unix seconds; tokens that came together, as they do when this
    process is late, count as one."""
    generated: int = 0
    """Tokens that the server says it has."""
    prompt_tokens: int = field(default=0, kw_only=True)
    """Tokens that the server says its prompt has."""
    asked: float = 0.0
    ended: float = 0.0
    streamed: bool = field(default=True, kw_only=True)
    """False: it is asked for as a whole, and nothing is known of when its tokens arrive."""


def stream_together(
    url: str, model: str, streams: int, tokens: int, headers: Mapping[str, str] | None = None
) -> list[Stream]:
    """Ask for completions of a fixed length, all at once.

    Args:
        url: Of the server.
        model: Its name there.
        streams: Completions at the same time.
        tokens: Of each; a server may end one earlier.
        headers: Sent with every request.

    Raises:
        CompletionError: One did not come, or not as one.
    """
    asked = [Stream(f"Question {number}:") for number in range(streams)]

    async def ask() -> None:
        async with new_client(url, headers, TIMEOUT_SECONDS) as client:
            await until_all_are_done([ask_for(client, model, one, tokens) for one in asked])

    asyncio.run(ask())
    return asked


async def ask_for(
    client: httpx.AsyncClient,
    model: str,
    stream: Stream,
    tokens: int,
    temperature: float = 0,
    arrived: Callable[[], None] = lambda: None,
) -> None:
    """Ask for one completion, and note when its tokens arrive.

    Args:
        client: From `new_client`.
        model: Its name on the server.
        stream: Of the completion.
        tokens: Of it.
        temperature: 0: greedy.
        arrived: Called after each has been noted.

    Raises:
        CompletionError: It did not come, or not as one.
    """

    def note() -> None:
        stream.arrived.append(time.time())
        arrived()

    prompt: JsonValue = stream.prompt if isinstance(stream.prompt, str) else list(stream.prompt)
    stream.asked = time.time()
    request: dict[str, JsonValue] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": temperature,
    }
    if stream.streamed:
        usage = await stream_completion(client, request, note)
    else:
        usage = await whole_completion(client, request)
    stream.generated, stream.prompt_tokens = usage.completion_tokens, usage.prompt_tokens
    stream.ended = time.time()
