# SPDX-License-Identifier: Apache-2.0
"""How a recording lies in a folder (docs/recording.md).

::

    FOLDER/20261128T011305.120Z-rank0/model0-000001.safetensors
           when a server started       of each model, in order

A file stands for itself: it begins with the placement that was in force.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.recording.recording import Ended, InForce, RecordingError, Served, Shape

SCHEMA = "vllm-eplb-plugin recording 1"

_FILE = re.compile(r"model(\d+)-(\d+)\.safetensors")


@dataclass(frozen=True, order=True)
class Place:
    """The place of a file among the others of its folder."""

    model_index: int
    number: int
    """Counted from 1."""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"model{self.model_index}-{self.number:06}.safetensors"


def place_of(file: Path) -> Place | None:
    """Find where a file belongs; None: it is none of a recording."""
    found = _FILE.fullmatch(file.name)
    return None if found is None else Place(int(found[1]), int(found[2]))


def written_metadata(served: Served, outcomes: list[Ended], lost: int) -> dict[str, str]:
    """Write what stands beside the tensors.

    Args:
        served: What was served.
        outcomes: Of rearrangements that ended since the file before.
        lost: Windows that this server could not write so far.
    """
    return {
        "schema": SCHEMA,
        "served": json.dumps(asdict(served)),
        "outcomes": json.dumps([[one.step, one.time, one.outcome] for one in outcomes]),
        "lost": str(lost),
    }


def served_of(metadata: dict[str, str]) -> Served:
    """Read what was served.

    Raises:
        RecordingError: It is of another schema.
    """
    if (schema := metadata.get("schema")) is None:
        raise RecordingError("it is no recording; `vllm-eplb convert` reads other projects' files")
    if schema != SCHEMA:
        raise RecordingError(f"its schema is {schema!r}, not {SCHEMA!r}")
    try:
        served: dict[str, Any] = json.loads(metadata["served"])
        shape = Shape(**served.pop("shape"))
        expert_bytes = tuple(served.pop("expert_bytes"))
        return Served(**served, shape=shape, expert_bytes=expert_bytes)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"its metadata do not say what was served: {error}") from error


def outcomes_of(metadata: dict[str, str]) -> list[Ended]:
    """Read how rearrangements ended.

    Raises:
        RecordingError: They are not ``[[step, time, outcome], ...]``.
    """
    try:
        return [Ended(*one) for one in json.loads(metadata["outcomes"])]
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"its metadata do not say how rearrangements ended: {error}") from None


def stacked(placements: list[InForce], shape: Shape) -> NDArray[np.integer]:
    """Stack placements, ``[placements, layers, slots]``, in the smallest dtype."""
    empty = np.zeros((0, shape.layers, shape.slots), np.uint8)
    rows = [one.physical_to_logical[None] for one in placements]
    return smallest(np.concatenate([empty, *rows]) if rows else empty)


def smallest(numbers: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the same numbers in the smallest unsigned dtype that holds them.

    Args:
        numbers: None is below 0.
    """
    highest = int(numbers.max(initial=0))
    dtype = next(
        one for one in (np.uint8, np.uint16, np.uint32, np.uint64) if highest <= np.iinfo(one).max
    )
    return numbers.astype(dtype, copy=False)
