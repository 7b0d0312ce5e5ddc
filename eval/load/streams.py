# SPDX-License-Identifier: Apache-2.0
"""Completions streamed side by side, and when each of their tokens arrived."""

import asyncio
import json
import time
from collections.abc import Mapping

import httpx

from eval.errors import ServerError


def stream_together(
    url: str, model: str, streams: int, tokens: int, headers: Mapping[str, str] | None = None
) -> list[list[float]]:
    """Ask for completions of a fixed length, all at once; ``headers`` are sent with each request.

    Returns:
        For each of them when its tokens arrived, in Unix seconds; tokens that came together, as
        they do when this process is late, count as one.

    Raises:
        ServerError: A request failed or brought fewer tokens.
    """
    try:
        return asyncio.run(_stream_together(url, model, streams, tokens, headers))
    except httpx.HTTPError as error:
        raise ServerError(f"a streamed completion failed: {error!r}") from error


async def _stream_together(
    url: str, model: str, streams: int, tokens: int, headers: Mapping[str, str] | None
) -> list[list[float]]:
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=600, trust_env=False
    ) as client:
        prompts = (f"Question {number}:" for number in range(streams))
        return await asyncio.gather(*(_stream(client, model, one, tokens) for one in prompts))


async def _stream(client: httpx.AsyncClient, model: str, prompt: str, tokens: int) -> list[float]:
    request = {
        "model": model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    arrived, generated = [], 0
    async with client.stream("POST", "/v1/completions", json=request) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk["choices"]:
                arrived.append(time.time())
            else:
                generated = chunk["usage"]["completion_tokens"]
    if generated < tokens:
        raise ServerError(
            f"a streamed completion has {generated} of {tokens} tokens: the server ended it"
        )
    return arrived
