# SPDX-License-Identifier: Apache-2.0
"""Completions asked for without a pause, and what keeps them from coming."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

_WORDS = [
    "how",
    "many",
    "apples",
    "does",
    "the",
    "farmer",
    "have",
    "after",
    "the",
    "market",
    "if",
    "each",
    "basket",
    "holds",
    "nine",
]
_PROMPT_WORDS = (4, 400)
_TOKENS = (8, 200)
_WATCH_SECONDS = 2.0


@dataclass
class Load:
    """What was asked so far."""

    requests: int = 0
    """Completions that came to their end."""
    tokens: int = 0
    """That these have."""
    last_token: float = field(default_factory=time.monotonic)
    problem: str | None = None
    """Why it ended before its time."""


class _LoadError(Exception):
    """A request failed, or nothing comes any more."""


def keep_asking(
    url: str,
    model: str,
    streams: int,
    seconds: float,
    hang_seconds: float,
    watch: Callable[[Load], None],
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Keep ``streams`` completions under way, of lengths that vary but are the same in every run.

    Args:
        url: Of the server.
        model: Its name there.
        streams: Completions at the same time.
        seconds: After which no more are asked for, but one of each; those under way still come to
            their end.
        hang_seconds: Without any token, after which the server counts as hanging.
        watch: Called every two seconds, in a thread of its own.
        headers: Of every request.

    Returns:
        What was asked; its problem says whether and why that ended early.
    """
    load = Load()

    async def ask() -> None:
        end = time.monotonic() + seconds
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=None, trust_env=False
        ) as client:
            watching = asyncio.create_task(_watch(hang_seconds, watch, load))
            numbers = range(streams)
            asking = [
                asyncio.create_task(_stream(client, model, one, end, load)) for one in numbers
            ]
            await _until_asked(asking, watching)

    try:
        asyncio.run(ask())
    except (_LoadError, httpx.HTTPError) as error:
        load.problem = str(error) or repr(error)
    return load


async def _until_asked(
    asking: Sequence["asyncio.Task[None]"], watching: "asyncio.Task[None]"
) -> None:
    """Wait for all that ask; the first of all tasks that fails ends them."""
    waiting = {watching, *asking}
    try:
        while waiting != {watching}:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        # Before the client is closed: requests under way would fail then, and say only that.
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _stream(
    client: httpx.AsyncClient, model: str, number: int, end: float, load: Load
) -> None:
    choose = random.Random(number)
    asked = False
    while not asked or time.monotonic() < end:
        asked = True
        words = [f"{number}", *choose.choices(_WORDS, k=choose.randint(*_PROMPT_WORDS))]
        tokens = choose.randint(*_TOKENS)
        request = {
            "model": model,
            "prompt": " ".join(words),
            "max_tokens": tokens,
            # Greedy answers of a small model repeat themselves, and so do the experts they take.
            "temperature": 1.0,
            "seed": choose.randrange(2**31),
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        generated = 0
        async with client.stream("POST", "/v1/completions", json=request) as response:
            if response.is_error:
                await response.aread()
                raise _LoadError(f"a request failed with {response.status_code}: {response.text}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise _LoadError(f"a request failed: {line}")
                if chunk["choices"]:
                    load.last_token = time.monotonic()
                else:
                    generated = chunk["usage"]["completion_tokens"]
        if generated < tokens:
            raise _LoadError(
                f"a completion has {generated} of {tokens} tokens: the server ended it"
            )
        load.requests += 1
        load.tokens += generated


async def _watch(hang_seconds: float, watch: Callable[[Load], None], load: Load) -> None:
    while True:
        await asyncio.to_thread(watch, load)
        silent = time.monotonic() - load.last_token
        if silent > hang_seconds:
            raise _LoadError(f"no token of any completion for {silent:.0f} s: the server hangs")
        await asyncio.sleep(_WATCH_SECONDS)
