# SPDX-License-Identifier: Apache-2.0
"""What was served while it was recorded is what the simulator says, bit for bit."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import serving
from tests.e2e.requests import answers
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.simulation.replaying import replay

SYNC = {
    "window_size": 10,
    "step_interval": 20,
    "num_redundant_experts": 4,
    "use_async": False,
}


@pytest.mark.parametrize("planning", [None, {"policy": "incremental"}], ids=["vllm", "incremental"])
def test_replayed_plans_are_the_served_ones_one_after_another(
    planning: dict[str, Any] | None, tmp_path: Path
) -> None:
    folder = tmp_path / "recording"
    plugin = {
        "loopback": True,
        "check_weights": True,
        "recording": {"dir": str(folder)},
        "planning": planning,
    }
    arm = {"name": "recorded", "eplb": SYNC, "plugin": plugin}
    with serving(tmp_path, arm, tmp_path / "events") as server:
        first = answers(server.url)
        assert answers(server.url) == first
    [recording] = read_recordings(folder)
    assert len(recording.windows) >= 4
    served = [one.physical_to_logical for one in recording.placements]
    planned = [one.physical_to_logical for one in replay(recording)]
    changed = [after for before, after in pairwise(planned) if (before != after).any()]
    # What had ended when the last file was written; the server is killed in the end.
    assert len(served) >= 4
    assert np.array_equal(served[1:], changed[: len(served) - 1])
    for command in (["recording", str(folder)], ["simulate", str(folder)]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
