# SPDX-License-Identifier: Apache-2.0
"""Events of schema 1, which told no outcome but that a rearrangement finished, as those of today.

There `rearrangement_finished` also ended what had been rejected and what changed nothing, nothing
ended what failed, and models were told apart by their names.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from vllm_eplb_plugin.observe.events import SCHEMA_VERSION, Head, RearrangementEvent, Source

_Line = dict[str, Any]

_KEPT = [field.name for kind in (Head, Source, RearrangementEvent) for field in fields(kind)]


class FileOfSchema1:
    """Follows one file, line by line."""

    def __init__(self) -> None:
        self._models: dict[str, int] = {}
        self._open: dict[str, _Line] = {}
        """By model, what began and has no outcome yet."""
        self._rejected: dict[str, int] = {}
        """By model, the last one."""

    def convert(self, line: _Line) -> Iterator[_Line]:
        """The lines that there would be today instead of this one.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is of another type.
        """
        line = line | {"schema": SCHEMA_VERSION, "global_rank": line["rank"], "stage": 0}
        kind = line["event"]
        if kind == "events_dropped":
            yield {name: value for name, value in line.items() if name != "model"}
            return
        model = line["model"]
        line["model_index"] = self._models.setdefault(model, len(self._models))
        if kind == "rearrangement_started":
            yield from self._started(model, line)
        elif kind == "placement_rejected":
            yield self._end(line, "rejected", line["reason"])
            self._rejected[model] = line["rearrangement"]
        elif kind == "rearrangement_finished":
            yield from self._finished(model, line)
        elif kind != "layer_committed" or line["slots_changed"]:
            yield line

    def _started(self, model: str, line: _Line) -> Iterator[_Line]:
        if model in self._open:
            given_up = self._open[model] | {"time": line["time"]}
            reason = "it never finished although a later one started"
            yield self._end(given_up, "failed", reason) | {"layers_left": None}
        self._open[model] = line
        yield line

    def _finished(self, model: str, line: _Line) -> Iterator[_Line]:
        if self._rejected.get(model) == line["rearrangement"]:
            return
        if any(line["slots_changed"]):
            self._open.pop(model, None)
            yield line
        else:
            skipped = self._end(line, "skipped", "it changed no slot")
            yield skipped | {"seconds": line["seconds"]}

    def _end(self, line: _Line, outcome: str, reason: str) -> _Line:
        started = self._open.pop(line["model"], line)
        moment = {name: line[name] for name in _KEPT}
        ended = {"event": f"rearrangement_{outcome}", "seconds": line["time"] - started["time"]}
        return moment | ended | {"reason": reason}
