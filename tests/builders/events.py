# SPDX-License-Identifier: Apache-2.0
"""Events as the plugin writes them, for tests of what is read."""

import json
from collections.abc import Sequence
from pathlib import Path

from vllm_eplb_plugin.observe.events import (
    Event,
    LayerCommitted,
    Mode,
    RearrangementFinished,
    RearrangementPlanned,
    RearrangementStarted,
    Source,
)

FIRST = Source(0, 0, 0)


def told(time: float, event: Event, source: Source = FIRST) -> str:
    """One line."""
    return json.dumps(event.line(source, time), separators=(",", ":")) + "\n"


def write_events(folder: Path, *files: Sequence[str]) -> Path:
    """A file for each rank of the server."""
    for rank, lines in enumerate(files):
        (folder / f"rank{rank}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def moment(
    number: int, name: str = "main", model_index: int = 0
) -> tuple[str, int, int, int, Mode]:
    """The first fields of an event of a rearrangement."""
    return (name, model_index, number, 10, "async")


def started(number: int, name: str = "main", model_index: int = 0) -> Event:
    return RearrangementStarted(*moment(number, name, model_index))


def planned(
    number: int,
    experts: Sequence[int] = (1,),
    of_ranks: Sequence[int] = (8, 0),
    policy: str = "vllm",
    name: str = "main",
    model_index: int = 0,
) -> Event:
    """What is moved: experts for each layer, bytes for each rank."""
    return RearrangementPlanned(
        *moment(number, name, model_index), sum(map(bool, experts)), 0.05, policy, [], "interval",
        0.002, list(experts), list(of_ranks), [0] * len(of_ranks), 0.5, 1.0, 0, 0,
    )  # fmt: skip


def finished(
    number: int,
    slots: Sequence[int] = (1,),
    before: float = 0.5,
    name: str = "main",
    model_index: int = 0,
) -> Event:
    return RearrangementFinished(
        *moment(number, name, model_index), 0.1, before, 1.0, list(slots), 8
    )


def committed(layer: int, slots: int, name: str = "main", model_index: int = 0) -> Event:
    return LayerCommitted(*moment(1, name, model_index), layer, slots)
