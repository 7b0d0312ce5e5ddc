# SPDX-License-Identifier: Apache-2.0
"""What the ranks of a group say in a store without coming together.

Who has nothing to ask says its word and goes on; only who has to know waits.
"""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from vllm_eplb_plugin.engine.rendezvous import store_of

_POLL_SECONDS = 0.01
_PARTING_SECONDS = 5.0
"""How long at most those that have heard wait for those that have not."""


def say(coordinator: Any, subject: str, word: Any) -> None:
    """Say something to the group; the last word counts, and stays said.

    Args:
        coordinator: A vLLM ``GroupCoordinator``.
        subject: A few words, the same on all ranks.
        word: Whatever JSON can hold.
    """
    key = _key(coordinator, subject, coordinator.rank_in_group)
    store_of(coordinator).set(key, json.dumps(word))


def hear(
    coordinator: Any, subject: str, limit_seconds: float, enough: Callable[[Sequence[Any]], bool]
) -> list[Any]:
    """Wait until every rank has said something, or until what was said is enough.

    Args:
        coordinator: A vLLM ``GroupCoordinator``.
        subject: As whoever speaks calls it.
        limit_seconds: How long to wait.
        enough: Told what was said so far, by ranks.

    Returns:
        The words of those that have spoken, in the order of ranks; fewer than ranks if time is
        over.
    """
    store = store_of(coordinator)
    keys = [_key(coordinator, subject, rank) for rank in range(coordinator.world_size)]
    end = time.monotonic() + limit_seconds
    while True:
        said = [json.loads(store.get(key)) for key in keys if store.check([key])]
        if len(said) == len(keys) or enough(said) or time.monotonic() >= end:
            return said
        time.sleep(_POLL_SECONDS)


def part(coordinator: Any, subject: str) -> None:
    """Wait until all have heard, before what was said ends the process that keeps the store."""
    store, key = store_of(coordinator), f"{_place(coordinator, subject)}/heard"
    end = time.monotonic() + _PARTING_SECONDS
    with contextlib.suppress(RuntimeError):  # it has ended, and nothing is left to read
        heard = store.add(key, 1)
        while heard < coordinator.world_size and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            heard = store.add(key, 0)


def _key(coordinator: Any, subject: str, rank: int) -> str:
    return f"{_place(coordinator, subject)}/{rank}"


def _place(coordinator: Any, subject: str) -> str:
    # Groups of one name, such as those of two DP ranks, differ in their first rank.
    return f"vllm_eplb_plugin/said/{coordinator.ranks[0]}/{subject}"
