# SPDX-License-Identifier: Apache-2.0
"""Completions asked for without a pause, and what keeps them from coming."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx
from pydantic import JsonValue

from eval.load.completions import (
    CompletionError,
    new_client,
    require_tokens,
    stream_completion,
    until_all_are_done,
)

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
        headers: Sent with every request.

    Returns:
        What was asked; its problem says whether and why that ended early.
    """
    load = Load()

    async def ask() -> None:
        end = time.monotonic() + seconds
        async with new_client(url, headers, timeout=None) as client:
            asking = [stream_completions(client, model, one, end, load) for one in range(streams)]
            await until_all_are_done(asking, [until_silent(hang_seconds, watch, load)])

    try:
        asyncio.run(ask())
    except CompletionError as error:
        load.problem = str(error)
    return load


async def stream_completions(
    client: httpx.AsyncClient, model: str, number: int, end: float, load: Load
) -> None:
    choose = random.Random(number)
    asked = False

    def arrived() -> None:
        load.last_token = time.monotonic()

    while not asked or time.monotonic() < end:
        asked = True
        words = [f"{number}", *choose.choices(_WORDS, k=choose.randint(*_PROMPT_WORDS))]
        tokens = choose.randint(*_TOKENS)
        request: dict[str, JsonValue] = {
            "model": model,
            "prompt": " ".join(words),
            "max_tokens": tokens,
            # Greedy answers of a small model repeat themselves, and so do the experts they take.
            "temperature": 1.0,
            "seed": choose.randrange(2**31),
        }
        usage = await stream_completion(client, request, arrived)
        require_tokens(usage.completion_tokens, tokens)
        load.requests += 1
        load.tokens += usage.completion_tokens


async def until_silent(hang_seconds: float, watch: Callable[[Load], None], load: Load) -> None:
    """Call ``watch`` every two seconds, for as long as tokens arrive.

    Raises:
        CompletionError: None has for ``hang_seconds``.
    """
    while True:
        await asyncio.to_thread(watch, load)
        silent = time.monotonic() - load.last_token
        if silent > hang_seconds:
            raise CompletionError(
                f"no token of any completion for {silent:.0f} s: the server hangs"
            )
        await asyncio.sleep(_WATCH_SECONDS)
