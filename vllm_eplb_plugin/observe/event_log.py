# SPDX-License-Identifier: Apache-2.0
"""Where events go: one file of JSON lines a rank (docs/events.md), what counts them, or nowhere."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_eplb_plugin.observe.delivery import Delivery, Sink
from vllm_eplb_plugin.observe.events import Event, EventsDropped
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines
from vllm_eplb_plugin.observe.status import ModelStatus

if TYPE_CHECKING:
    from vllm_eplb_plugin.observe.sinks.counts import Counts


class EventLog:
    """An event log tells one rank's events, each sink on a thread of its own."""

    def __init__(self, folder: Path | None, source: Source, counts: bool = False) -> None:
        """Open ``rank<N>.jsonl``.

        Args:
            folder: It is in this one; None: there is no file.
            source: Whose events these are.
            counts: Whether what becomes of rearrangements is counted, too, on EP rank 0.

        Raises:
            OSError: It cannot be opened, which ends the server before it serves.
        """
        self.source = source
        # What one rank of a stage says of models is enough.
        self._counts = _counts() if counts and source.speaks_for_all else None
        sinks: list[Sink] = [] if self._counts is None else [self._counts]
        if folder is not None:
            sinks.append(JsonLines(folder / f"rank{source.global_rank}.jsonl"))

        def dropped(number: int, reason: str) -> dict[str, object]:
            return EventsDropped(number, reason).line(source, time.time())

        self._deliveries = [Delivery(sink, dropped) for sink in sinks]

    @property
    def enabled(self) -> bool:
        """Somebody reads what is told."""
        return bool(self._deliveries)

    @property
    def dropped(self) -> int:
        """Events that some sink did not get."""
        return sum(delivery.dropped for delivery in self._deliveries)

    @property
    def counts(self) -> list[ModelStatus]:
        """What became of rearrangements; empty where it is not counted."""
        return [] if self._counts is None else self._counts.models

    def tell(self, make: Callable[[], Iterable[Event | None]]) -> None:
        """Tell what happened now.

        Args:
            make: Makes the events, on the thread of each sink, from what no longer changes; None
                between steps of a long computation.
        """
        source, now = self.source, time.time()
        for delivery in self._deliveries:
            delivery.tell(
                lambda: (None if event is None else event.line(source, now) for event in make())
            )


def _counts() -> "Counts":
    # It needs numpy, which comes with vLLM.
    from vllm_eplb_plugin.observe.sinks.counts import Counts

    return Counts()
