# SPDX-License-Identifier: Apache-2.0
"""How EPLB is, on one rank, at one moment: what /metrics and `vllm-eplb status` are made of.

Each rank writes one small file; whoever serves metrics reads those of its host. So it is told also
while the thread that runs the model stands still.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vllm_eplb_plugin.observe.commands import CommandStatus
from vllm_eplb_plugin.observe.event_heads import Mode
from vllm_eplb_plugin.observe.phases import Phase, Thread
from vllm_eplb_plugin.observe.progress import Outcome

STATUS_SCHEMA = 1
FOLDER_VARIABLE = "EPLB_PLUGIN_STATUS_DIR"
"""The environment variable by which the front end tells its ranks where they write."""

State = Literal["on", "paused", "off"]
Reason = Literal["operator", "worker ended", "stalled"]
"""operator: somebody paused it; worker ended: the async worker has, by an error; stalled: it was
given up and cannot begin anew."""


@dataclass(frozen=True)
class ThreadStatus:
    """What a thread does, and for how long."""

    phase: Phase
    layer: int | None
    seconds: float


@dataclass(frozen=True)
class Stall:
    """A stall is something that stands still for longer than it should."""

    rank: int
    """EP rank that does not go on, and not one that waits for it."""
    thread: Thread
    phase: Phase
    """In which it stands; of a process that tells nothing any more, the last that it told."""
    layer: int | None
    seconds: float


@dataclass(frozen=True)
class UnderWay:
    """A rearrangement that has begun and not ended."""

    rearrangement: int
    seconds: float
    layers_left: int | None
    """None: not planned."""


@dataclass(frozen=True)
class ModelStatus:
    """What became of the rearrangements of one model, as this rank knows."""

    model: str
    model_index: int
    layers: int
    outcomes: Mapping[Outcome, int]
    seconds: float
    """Of all rearrangements that ended, whatever their outcome."""
    last_seconds: float | None
    experts_received: int
    """Over all ranks: experts that some rank got from another one; on EP rank 0 only."""
    bytes_received: int
    """The same, in bytes."""
    layers_skipped: int
    """Layers that stayed as they were, in rearrangements that were planned."""
    balancedness_expected: float | None
    """Of the placement that was planned last."""
    balancedness: list[float] | None
    """For each layer, of the last load window under the placement in force then."""
    survivable: list[int] | None
    """EP ranks without which every expert would still have a slot, under the placement in force."""
    started: int = 0
    """Rearrangements that have, whatever became of them."""
    by_mode: Mapping[Mode, Mapping[Outcome, int]] = field(default_factory=dict)
    """The outcomes again: experts are put back in sync mode where all else is async."""
    balancedness_overall: float | None = None
    """As `balancedness_expected`, of the same window as `balancedness`."""
    tokens: list[int] | None = None
    """For each EP rank, as `balancedness`, summed over layers."""


@dataclass(frozen=True)
class RankStatus:
    """How EPLB is on one rank."""

    time: float
    """Unix seconds."""
    rank: int
    """EP rank."""
    global_rank: int
    stage: int
    num_ranks: int
    """EP ranks of the stage."""
    host: str
    process: int
    mode: Mode
    policy: str
    transfer: str
    """How weights get to other ranks."""
    state: State
    why: str | None
    """Why it is not on, or what would be good to know where it is."""
    step: int
    """Engine steps since the model was loaded."""
    steps_to_next: int | None
    """Engine steps until the next rearrangement is due; None: none is."""
    model_thread: ThreadStatus
    worker: ThreadStatus | None
    """None: sync mode."""
    under_way: UnderWay | None
    seconds_in_eplb: float
    """Of the thread that runs the model, since the start."""
    stalls: int
    """That began since the start, as this rank saw them."""
    stalled: list[Stall]
    """Now."""
    events_dropped: int
    """That some sink did not get."""
    reason: Reason | None = None
    """`why` among few; None: it is on."""
    models: list[ModelStatus] = field(default_factory=list)
    commands: list[CommandStatus] = field(default_factory=list)
    """The last ones of operators that ranks carried out, the newest last."""
    schema: int = STATUS_SCHEMA


def write_status(folder: Path, status: RankStatus) -> None:
    """Write ``rank<global rank>.json``, so that a reader finds it whole.

    Raises:
        OSError: It cannot be written.
    """
    file = folder / f"rank{status.global_rank}.json"
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(status), separators=(",", ":")))
    unfinished.replace(file)


def read_statuses(folder: Path) -> Iterator[RankStatus]:
    """Read what the ranks of this host wrote last; files of another schema are left out."""
    for file in sorted(folder.glob("rank*.json")):
        try:
            status = json.loads(file.read_text())
        except (OSError, ValueError):  # it has just been taken away
            continue
        if status.get("schema") == STATUS_SCHEMA:
            yield status_of(status)


def status_of(told: dict[str, Any]) -> RankStatus:
    """Make a status of what `dataclasses.asdict` makes of one, and JSON keeps."""
    told["model_thread"] = ThreadStatus(**told["model_thread"])
    told["worker"] = told["worker"] and ThreadStatus(**told["worker"])
    told["under_way"] = told["under_way"] and UnderWay(**told["under_way"])
    told["stalled"] = [Stall(**stall) for stall in told["stalled"]]
    told["commands"] = [CommandStatus(**command) for command in told["commands"]]
    told["models"] = [ModelStatus(**model) for model in told["models"]]
    return RankStatus(**told)
