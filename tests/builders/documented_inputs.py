# SPDX-License-Identifier: Apache-2.0
"""What documented commands read, small, under the names that pages give it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders.events import told, write_events
from tests.builders.kept import write_kept_run
from tests.builders.pages import REPOSITORY
from tests.builders.recordings import in_force, window
from tests.builders.runs import write_run
from vllm_eplb_plugin.observe.events import (
    Placement,
    RearrangementFinished,
    RearrangementPlanned,
    RearrangementStarted,
)
from vllm_eplb_plugin.recording.conversion import convert_to

_RECORDING = REPOSITORY / "docs" / "recordings" / "gsm-tiny"
_DOMAINS = 6


def write_inputs(folder: Path, commands: str) -> None:
    """Write what commands read.

    Args:
        folder: They are called in it.
        commands: Their text, which names their runs.
    """
    for name in ("loads", "RECORDING"):
        (folder / name).symlink_to(_RECORDING)
    convert_to(_RECORDING, folder / "counts.json", "sglang", 0, 0, 1)
    _write_counts(folder / "FOLDER")
    _write_events(folder / "events")
    for name in sorted(set(re.findall(r"\bruns/([\w-]+)", commands))):
        write_kept_run(folder / "runs", name)
    write_run(folder / "large")


def _write_counts(folder: Path) -> None:
    """Counts by domain of a model with as many layers and experts as OLMoE's have."""
    random = np.random.default_rng(1)
    counts = {
        f"domain{number}": random.integers(1, 1000, (3, 64)).tolist() for number in range(_DOMAINS)
    }
    folder.mkdir()
    (folder / "counts.json").write_text(json.dumps({"model": "a model", "counts": counts}))


def _write_events(folder: Path) -> None:
    """A rearrangement that moved experts, as one rank told of it."""
    moment: Any = ("tiny", 0, 1, 40, "async")
    before, after = (in_force(step).physical_to_logical.tolist() for step in (0, 1))
    planned = RearrangementPlanned(
        *moment, 3, 0.1, "vllm", [], "interval", 0.1, [2, 2, 2], [500, 268], [0, 0], 0.5, 0.9, 0, 0
    )
    placed = Placement("tiny", 0, 1, 43, "async", 2, after, window(40).load.tolist())
    folder.mkdir()
    write_events(
        folder,
        [
            told(1.0, Placement("tiny", 0, 0, 0, None, 2, before, None)),
            told(2.0, RearrangementStarted(*moment)),
            told(2.5, planned),
            told(3.0, RearrangementFinished(*moment, 1.0, 0.5, 0.9, [1, 1, 1], 768)),
            told(3.0, placed),
        ],
    )
