# SPDX-License-Identifier: Apache-2.0
"""Where events go: one file of JSON lines a rank, or nowhere (docs/events.md)."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from vllm_eplb_plugin.observe.delivery import Delivery
from vllm_eplb_plugin.observe.events import Event, EventsDropped
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines


class EventLog:
    """An event log tells one rank's events in ``rank<N>.jsonl``, on a thread of its own."""

    def __init__(self, folder: Path | None, source: Source) -> None:
        """Open the file; None: tell nobody.

        Raises:
            OSError: It cannot be opened, which ends the server before it serves.
        """
        self.source = source
        self._delivery: Delivery | None = None
        if folder is not None:

            def dropped(number: int, reason: str) -> dict[str, object]:
                return EventsDropped(number, reason).line(source, time.time())

            file = JsonLines(folder / f"rank{source.global_rank}.jsonl")
            self._delivery = Delivery(file, dropped)

    @property
    def enabled(self) -> bool:
        """Somebody reads what is told."""
        return self._delivery is not None

    def tell(self, make: Callable[[], Iterable[Event | None]]) -> None:
        """Tell what happened now.

        Args:
            make: Makes the events, on the thread that writes them, from what no longer changes;
                None between steps of a long computation.
        """
        if self._delivery is None:
            return
        source, now = self.source, time.time()
        self._delivery.tell(
            lambda: (None if event is None else event.line(source, now) for event in make())
        )
