# SPDX-License-Identifier: Apache-2.0
"""A served model is recorded, that is planned again, and the next server begins with it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from tests.e2e.conftest import serving
from tests.e2e.requests import answers
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.planning.triggers import balancedness
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.replaying import replay

EPLB = {"window_size": 10, "step_interval": 20, "num_redundant_experts": 4}


def test_what_is_planned_again_was_served_and_the_next_server_begins_with_it(
    tmp_path: Path,
) -> None:
    recorded, told = served(tmp_path / "first", use_async=False)
    assert_planned_again(recorded)
    for command in ("recording", "simulate"):
        done = CliRunner().invoke(main, [command, str(tmp_path / "first/recording")])
        assert done.exit_code == 0, done.output

    initial = {"policy": "incremental", "initial": str(tmp_path / "first/recording")}
    warm, told_then = served(tmp_path / "second", use_async=True, planning=initial)
    assert told_then == told
    begins = f"begin as planned from {len(recorded.windows)} load windows of"
    assert begins in (tmp_path / "second/server.log").read_text()
    assert_planned_again(warm)
    first_window = warm.windows[0].load.astype(float)
    ranks = warm.served.shape.ranks
    cold, begun = (one.placements[0].physical_to_logical for one in (recorded, warm))
    before, after = (balancedness(first_window, one, ranks) for one in (cold, begun))
    assert before is not None and after is not None and after > before


def served(
    folder: Path, use_async: bool, planning: dict[str, Any] | None = None
) -> tuple[Recording, list[str]]:
    """What a server recorded, and its answers."""
    folder.mkdir()
    plugin = {
        "loopback": True,
        "check_weights": True,
        "recording": {"dir": str(folder / "recording")},
        "planning": planning,
    }
    arm = {"name": "recorded", "eplb": {**EPLB, "use_async": use_async}, "plugin": plugin}
    with serving(folder, arm, folder / "events") as server:
        first = answers(server.url)
        assert answers(server.url) == first
    [found] = read_recordings(folder / "recording")
    return found, first


def assert_planned_again(recording: Recording) -> None:
    """The placements that came into force are those that are planned from the windows."""
    assert len(recording.windows) >= 4
    in_force = [one.physical_to_logical for one in recording.placements]
    planned = [one.physical_to_logical for one in replay(recording)]
    changed = [after for before, after in pairwise(planned) if (before != after).any()]
    # What had ended when the last file was written; the server is killed in the end.
    assert len(in_force) >= 4
    assert np.array_equal(in_force[1:], changed[: len(in_force) - 1])
