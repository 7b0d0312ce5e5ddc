# SPDX-License-Identifier: Apache-2.0
"""What a simulation found, for files that others read."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.planning.problem import Floats
from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.changes import CHANGED, changed_shares, changes_of
from vllm_eplb_plugin.simulation.mixing import mixing_of
from vllm_eplb_plugin.simulation.playing import Played
from vllm_eplb_plugin.simulation.summary import Row, name_of, row_of

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Simulated:
    """One recording, and all that was played over it."""

    recording: Recording
    shares: Floats
    """See `changes.changed_shares`."""
    changes: list[int]
    """Windows with which another domain begins."""
    played: list[Played]
    rows: list[Row]
    """One of each."""


def simulated(
    recording: Recording,
    played: list[Played],
    link: float | None = None,
    threshold: float = CHANGED,
) -> Simulated:
    """Count what was played over a recording.

    Args:
        recording: The one.
        played: In the order in which it is to be shown.
        link: See `summary.row_of`.
        threshold: See `changes.changes_of`.
    """
    shares = changed_shares(recording)
    changes = changes_of(shares, threshold)
    rows = [row_of(recording, one, changes, link) for one in played]
    return Simulated(recording, shares, changes, played, rows)


def write_json(file: Path, results: Sequence[Simulated], **asked: Any) -> None:
    """Write everything, window by window."""
    written = {
        "schema": SCHEMA_VERSION,
        "asked": asked,
        "recordings": [_recording(one) for one in results],
    }
    file.write_text(json.dumps(written, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(file: Path, results: Sequence[Simulated]) -> None:
    """Write a line for each combination, without what was served in each window."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for one in results for row in one.rows)


def _recording(one: Simulated) -> dict[str, Any]:
    served, windows = one.recording.served, one.recording.windows
    mixing = mixing_of(one.recording)
    return {
        "name": name_of(one.recording),
        "shape": asdict(served.shape),
        "release": served.release,
        "interval_steps": served.interval_steps,
        "window_steps": served.window_steps,
        "steps": [window.step for window in windows],
        "changes": [windows[change].step for change in one.changes],
        "mixing": None if mixing is None else asdict(mixing),
        "combinations": [
            asdict(row)
            | {"balancedness": [None if math.isnan(value) else value for value in served_as]}
            | {"rearrangements": [asdict(done) for done in played.rearrangements]}
            for row, played in zip(one.rows, one.played, strict=True)
            for served_as in (played.balancedness.tolist(),)
        ],
    }
