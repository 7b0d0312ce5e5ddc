# SPDX-License-Identifier: Apache-2.0
"""Completions streamed side by side, and when each of their tokens arrived."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from eval.load.completions import new_client, stream_completion, until_all_are_done

_TIMEOUT_SECONDS = 600


@dataclass
class Stream:
    """One completion."""

    prompt: str
    arrived: list[float] = field(default_factory=list)
    """When its tokens did, in Unix seconds; tokens that came together, as they do when this
    process is late, count as one."""
    generated: int = 0
    """Tokens that the server says it has."""
    asked: float = 0.0
    ended: float = 0.0


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
        async with new_client(url, headers, _TIMEOUT_SECONDS) as client:
            await until_all_are_done([_ask(client, model, one, tokens) for one in asked])

    asyncio.run(ask())
    return asked


async def _ask(client: httpx.AsyncClient, model: str, stream: Stream, tokens: int) -> None:
    stream.asked = time.time()
    stream.generated = await stream_completion(
        client,
        {"model": model, "prompt": stream.prompt, "max_tokens": tokens, "temperature": 0},
        lambda: stream.arrived.append(time.time()),
    )
    stream.ended = time.time()
