# SPDX-License-Identifier: Apache-2.0
"""A load that comes and goes, as that of users does, and what happens to a server meanwhile."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
from pydantic import JsonValue

from eval.load.churn import Load, until_silent
from eval.load.completions import (
    CompletionError,
    new_client,
    require_tokens,
    stream_completion,
    until_all_are_done,
)
from eval.load.same_questions import SameQuestions
from eval.results.trial import Happening, Trial

_MOST_TOKENS = 300
"""Of a completion."""
_ABORTED = 1 / 6
_RESTS = 1 / 8
_REST_SECONDS = 6.0
_COMPARED_EVERY = 4.0
_TOKENS = range(10, 500)
"""Of prompts: ids that any model has."""

Act = Callable[[random.Random], Awaitable[str]]
"""Does something to the server, and returns what it answered."""


class _EnoughError(Exception):
    """The client wants no more of a completion."""


@dataclass(frozen=True)
class Soak:
    """How a server is soaked."""

    streams: int
    seconds: float
    hang_seconds: float
    limit: int
    """Tokens of the longest prompt with its completion."""
    ranks: int
    """That requests can be sent to, one by one."""
    acts: Mapping[str, Act]
    """What happens to the server at random times, beside pauses and one rank that gets it all."""
    act_seconds: tuple[float, float] = (8.0, 25.0)
    """Between two happenings: at least, at most."""


def soak(
    url: str,
    model: str,
    how: Soak,
    watch: Callable[[Load], None],
    headers: Mapping[str, str] | None = None,
) -> tuple[Load, Trial]:
    """Ask, pause, break off and let happen, until the time is over.

    Args:
        url: Of the server.
        model: Its name there.
        how: See `Soak`.
        watch: Called every two seconds, in a thread of its own.
        headers: Sent with every request.

    Returns:
        What was asked and what happened; the load's problem says whether and why it ended early.
    """
    soaking = _Soaking(url, model, how, headers)
    try:
        asyncio.run(soaking.run(watch))
    except CompletionError as error:
        soaking.load.problem = str(error)
    soaking.trial.same_answers = soaking.questions.found
    return soaking.load, soaking.trial


class _Soaking:
    """One run of it."""

    def __init__(self, url: str, model: str, how: Soak, headers: Mapping[str, str] | None) -> None:
        self.load, self.trial = Load(), Trial()
        self.questions = SameQuestions(url, model, headers)
        self._url, self._model, self._how = url, model, how
        self._headers = dict(headers or {})
        self._only: int | None = None
        """The rank that gets all new requests."""
        self._clients: dict[int | None, httpx.AsyncClient] = {}
        """Of all ranks, and of each."""
        self._open = asyncio.Event()
        self._end = 0.0
        self._began = 0.0

    async def run(self, watch: Callable[[Load], None]) -> None:
        """Until the time is over."""
        await asyncio.to_thread(self.questions.before)
        async with AsyncExitStack() as open_clients:
            for rank in (None, *range(self._how.ranks)):
                self._clients[rank] = await open_clients.enter_async_context(self._client(rank))
            self._open.set()
            self._began = self.load.last_token = time.monotonic()
            self._end = self._began + self._how.seconds
            asking = [self._stream(number) for number in range(self._how.streams)]
            hang = until_silent(self._how.hang_seconds, watch, self.load)
            beside = [hang, self.questions.keep_comparing(_COMPARED_EVERY)]
            await until_all_are_done([*asking, self._happen()], beside)

    async def _stream(self, number: int) -> None:
        choose = random.Random(number)
        while time.monotonic() < self._end:
            await self._open.wait()
            await self._ask(self._clients[self._only], choose)
            if choose.random() < _RESTS:
                await asyncio.sleep(choose.uniform(0, _REST_SECONDS))

    def _client(self, rank: int | None) -> httpx.AsyncClient:
        return new_client(self._url, self._headers, None, data_parallel_rank=rank)

    async def _ask(self, client: httpx.AsyncClient, choose: random.Random) -> None:
        tokens = _log_uniform(choose, min(_MOST_TOKENS, self._how.limit - 1))
        length = max(1, _log_uniform(choose, self._how.limit) - tokens)
        left = choose.randint(1, tokens) if choose.random() < _ABORTED else tokens + 1

        def arrived() -> None:
            nonlocal left
            self.load.last_token = time.monotonic()
            left -= 1
            if not left:
                raise _EnoughError

        prompt: list[JsonValue] = list(choose.choices(_TOKENS, k=length))
        request: dict[str, JsonValue] = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 1.0,
            "seed": choose.randrange(2**31),
        }
        try:
            usage = await stream_completion(client, request, arrived)
        except _EnoughError:
            self.trial.aborted += 1
            return
        require_tokens(usage.completion_tokens, tokens)
        self.load.requests += 1
        self.load.tokens += usage.completion_tokens

    async def _happen(self) -> None:
        choose = random.Random(1)
        acts = {"pause": self._pause, "one rank": self._one_rank, **self._how.acts}
        coming: list[str] = []
        while (left := self._end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, choose.uniform(*self._how.act_seconds)))
            if time.monotonic() >= self._end:
                return
            coming = coming or choose.sample([*acts], len(acts))
            what, began = coming.pop(), time.monotonic()
            said = await acts[what](choose)
            happening = Happening(
                what=what,
                seconds=round(began - self._began, 2),
                took=round(time.monotonic() - began, 2),
                said=said,
            )
            self.trial.happenings.append(happening)

    async def _pause(self, choose: random.Random) -> str:
        """Nobody asks."""
        self._open.clear()
        end = time.monotonic() + choose.uniform(4, 12)
        while time.monotonic() < end:
            self.load.last_token = time.monotonic()
            await asyncio.sleep(0.5)
        self._open.set()
        return ""

    async def _one_rank(self, choose: random.Random) -> str:
        """All others are idle: they make dummy steps."""
        self._only = choose.randrange(self._how.ranks)
        await asyncio.sleep(choose.uniform(5, 15))
        told, self._only = f"EP rank {self._only} was asked alone", None
        return told


def _log_uniform(choose: random.Random, most: int) -> int:
    """From 1 to ``most``, as many in each octave."""
    return max(1, min(most, round(math.exp(choose.uniform(0, math.log(max(most, 1)))))))
