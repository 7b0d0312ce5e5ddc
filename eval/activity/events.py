# SPDX-License-Identifier: Apache-2.0
"""Reads the plugin's events (docs/events.md), also those of its earlier releases."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import from_json

from eval.activity.events_of_schema_1 import FileOfSchema1
from eval.activity.planned_earlier import PlannedEarlier, is_planned_earlier
from eval.errors import EventsError
from vllm_eplb_plugin.observe.events import EVENTS, SCHEMA_VERSION, Event, Head, Source

DELIVERY_SECONDS = 1.0
"""After which an event is in its file."""
_HEAD = 100
"""Bytes of a line in which its kind stands."""
_KIND = re.compile(rb'"event": ?"(\w+)"')
_EVERY_LINE_HAS = {"schema", "event", "time", "rank"}


class Told(NamedTuple):
    """An event, who told it and when."""

    time: float
    """In Unix seconds."""
    source: Source
    event: Event


class _Kind(NamedTuple):
    """How one kind is read."""

    of: TypeAdapter[Any]
    fields: frozenset[str]

    def event(self, values: dict[str, Any]) -> Event:
        """From its own fields.

        Raises:
            ValueError: One is missing, unknown or of another type.
        """
        if unknown := values.keys() - self.fields:
            raise ValueError(f"it has no field {min(unknown)!r}")
        event: Event = self.of.validate_python(values)
        return event


def _read_as(kind: type[Event]) -> _Kind:
    return _Kind(TypeAdapter(kind), frozenset(field.name for field in fields(kind)))


_KINDS = {kind.kind: _read_as(kind) for kind in EVENTS}
_PLANNED_EARLIER = _read_as(PlannedEarlier)
_TIME = TypeAdapter(Annotated[FiniteFloat, Field(strict=True)])
_SOURCE = TypeAdapter(Source)
_OF_SOURCE = [field.name for field in fields(Source)]
_OF_ALL = {field.name for field in fields(Head)} | set(_OF_SOURCE)


def read_events(path: Path, without: Collection[type[Event]] = ()) -> Iterator[Told]:
    """The events of one rank, in their order, but for kinds that are passed over unread.

    Raises:
        EventsError: A line is no event; names the file and the line.
    """
    unread = {kind.kind.encode() for kind in without}
    earlier = FileOfSchema1()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            # Every whole line ends with a newline: one that does not was cut off in writing.
            if not line.endswith(b"\n"):
                continue
            kind = _KIND.search(line, 0, _HEAD)
            if kind is None or kind[1] not in unread:
                yield from _parse(line.rstrip(b"\n"), earlier, f"{path}, line {number}")


def files_that_speak_for_all(folder: Path) -> list[Path]:
    """Those of EP rank 0, one a pipeline stage: what it does not tell, all ranks do alike.

    Raises:
        EventsError: The first line of a file is no event.
    """
    return [path for path in files_of_all_ranks(folder) if _speaks_for_all(path)]


def files_of_all_ranks(folder: Path) -> list[Path]:
    """In the order of their ranks; there may be none."""
    return sorted(folder.glob("rank*.jsonl"), key=lambda path: (len(path.name), path.name))


def _speaks_for_all(path: Path) -> bool:
    first = next(read_events(path), None)
    return first is not None and first.source.speaks_for_all


def _parse(line: bytes, earlier: FileOfSchema1, where: str) -> Iterator[Told]:
    try:
        values = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise EventsError(f"{where}: not JSON ({error}): {_short(line)!r}") from error
    if not isinstance(values, dict) or not values.keys() >= _EVERY_LINE_HAS:
        raise EventsError(f"{where}: not an event: {_short(line)!r}")
    schema, kind, time = values["schema"], values["event"], values["time"]
    if schema not in (1, SCHEMA_VERSION):
        raise EventsError(
            f"{where}: events of schema {schema!r}, this harness reads 1 and {SCHEMA_VERSION}: "
            "use the harness of the plugin's release"
        )
    lines: Iterable[dict[str, Any]] = (values,)
    try:
        if schema == 1:
            lines = earlier.convert(values)
        for one in lines:
            yield _told(one)
    except (ValueError, KeyError, TypeError) as error:
        raise EventsError(
            f"{where}: the event {kind!r} of time {time} is not as docs/events.md says: "
            f"{_reason(error)}"
        ) from error


def _told(values: dict[str, Any]) -> Told:
    kind = _KINDS.get(values["event"])
    if kind is None:
        raise ValueError("there is no such kind")
    source = {name: values[name] for name in _OF_SOURCE}
    own = {name: value for name, value in values.items() if name not in _OF_ALL}
    event = (_PLANNED_EARLIER if is_planned_earlier(values["event"], own) else kind).event(own)
    return Told(_TIME.validate_python(values["time"]), _SOURCE.validate_python(source), event)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _short(line: bytes) -> str:
    return line[:200].decode(errors="replace")
