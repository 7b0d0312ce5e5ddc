# SPDX-License-Identifier: Apache-2.0
"""Questions in batches, until somebody has enough of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """What was asked of one task so far."""

    texts: Sequence[str]
    """The answers to its first questions, in order."""
    started: float
    """The first question was sent, in Unix seconds."""
    finished: float
    """The last answer was received."""


class Batches(NamedTuple):
    """How many questions are asked before the next ones are, and whether these still are."""

    size: int | None
    """None: all at once."""
    enough: Callable[[Asked], bool]
    """After each batch but the last."""

    def of(self, instances: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """One batch after another."""
        size = self.size or max(1, len(instances))
        for start in range(0, len(instances), size):
            yield instances[start : start + size]


ALL_AT_ONCE = Batches(None, lambda _: False)
