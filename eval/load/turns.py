# SPDX-License-Identifier: Apache-2.0
"""A number of completions, so many at the same time, of prompts in an order."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice

import httpx

from eval.load.completions import new_client, require_tokens, until_all_are_done
from eval.load.streams import TIMEOUT_SECONDS, Stream, ask_for


@dataclass
class _Turns:
    """What all streams take their prompts from."""

    model: str
    prompts: Iterator[str | Sequence[int]]
    tokens: int
    ends: float
    """By the monotonic clock: no completion is begun after it."""
    begin: list[asyncio.Event]
    """Of each stream."""
    streamed: int
    """One of so many completions."""
    asked: list[Stream] = field(default_factory=list)

    def next(self) -> Stream | None:
        """None: no more is asked."""
        prompt = next(self.prompts, None) if time.monotonic() < self.ends else None
        if prompt is None:
            return None
        self.asked.append(Stream(prompt, streamed=len(self.asked) % self.streamed == 0))
        return self.asked[-1]

    def arrived(self) -> None:
        """Let as many streams begin as the first completion has tokens for."""
        share = len(self.asked[0].arrived) / self.tokens
        for begin in self.begin[: 1 + int(share * len(self.begin))]:
            begin.set()


def stream_in_turns(
    url: str,
    model: str,
    prompts: Iterator[str | Sequence[int]],
    completions: int,
    streams: int,
    tokens: int,
    most_seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
    streamed: int = 1,
    data_parallel_ranks: int | None = None,
) -> list[Stream]:
    """Ask for completions of a fixed length, one after another on each stream.

    Streams begin one by one while the first completion comes, and so end one by one ever after:
    what is under way changes a little with every few tokens, and not all at once.

    Args:
        url: Of the server.
        model: Its name there.
        prompts: Texts or token ids; asked in this order.
        completions: So many at most.
        streams: At the same time.
        tokens: Of each.
        most_seconds: After which none is begun; those under way still come to their end.
        headers: Sent with every request.
        streamed: One of so many completions, the first among them; the others are asked for as a
            whole, so that reading tokens takes this process less time than making them.
        data_parallel_ranks: That answer: each stream has one of them, in turns. None: the server
            chooses for each completion.

    Raises:
        CompletionError: One did not come, not as one, or shorter.
    """

    async def ask() -> list[Stream]:
        ends = float("inf") if most_seconds is None else time.monotonic() + most_seconds
        begin = [asyncio.Event() for _ in range(min(streams, completions))]
        turns = _Turns(model, islice(prompts, completions), tokens, ends, begin, streamed)
        begin[0].set()
        ranks = range(data_parallel_ranks) if data_parallel_ranks else [None]
        async with AsyncExitStack() as open_clients:
            clients = [
                await open_clients.enter_async_context(
                    new_client(url, headers, TIMEOUT_SECONDS, data_parallel_rank=rank)
                )
                for rank in ranks
            ]
            asking = [_stream(*one, turns) for one in zip(cycle(clients), begin, strict=False)]
            await until_all_are_done(asking)
        return turns.asked

    return asyncio.run(ask())


async def _stream(client: httpx.AsyncClient, begin: asyncio.Event, turns: _Turns) -> None:
    await begin.wait()
    while (stream := turns.next()) is not None:
        # Greedy answers of a random model repeat themselves, and so do the experts they take.
        await ask_for(client, turns.model, stream, turns.tokens, 1.0, turns.arrived)
        require_tokens(stream.generated, turns.tokens)
        for other in turns.begin:
            other.set()  # However few pieces the first one came in.
