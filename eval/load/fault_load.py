# SPDX-License-Identifier: Apache-2.0
"""A load during which a fault strikes: sampled completions, and the same questions beside them."""

import asyncio
import time
from collections.abc import Callable, Mapping

from eval.load.churn import Load, stream_completions, until_silent
from eval.load.completions import CompletionError, new_client, until_all_are_done
from eval.load.same_questions import SameQuestions
from eval.results.trial import SameAnswers

_COMPARED_EVERY = 1.0


def ask_during(
    url: str,
    model: str,
    streams: int,
    seconds: float,
    hang_seconds: float,
    harm: Callable[[], None],
    harm_after: float,
    watch: Callable[[Load], None],
    headers: Mapping[str, str] | None = None,
) -> tuple[Load, SameAnswers]:
    """Ask for so many seconds, with harm done after some of them.

    Args:
        url: Of the server.
        model: Its name there.
        streams: Completions at the same time.
        seconds: After which no more are asked for.
        hang_seconds: Without any token, after which the server counts as hanging.
        harm: Called once, in a thread of its own; it may take its time.
        harm_after: Seconds after which it is.
        watch: Called every two seconds, in a thread of its own.
        headers: Sent with every request.

    Returns:
        What was asked, and how the same questions were answered; the load's problem says whether
        and why it ended early.
    """
    load, questions = Load(), SameQuestions(url, model, headers)

    async def do_harm() -> None:
        await asyncio.sleep(harm_after)
        await asyncio.to_thread(harm)

    async def ask() -> None:
        await asyncio.to_thread(questions.before)
        load.last_token = time.monotonic()
        end = time.monotonic() + seconds
        async with new_client(url, headers, timeout=None) as client:
            asking = [stream_completions(client, model, one, end, load) for one in range(streams)]
            beside = [
                until_silent(hang_seconds, watch, load),
                questions.keep_comparing(_COMPARED_EVERY),
            ]
            await until_all_are_done([*asking, do_harm()], beside)

    try:
        asyncio.run(ask())
    except CompletionError as error:
        load.problem = str(error)
    return load, questions.found
