# SPDX-License-Identifier: Apache-2.0
"""What the setting `recording` leaves, on two gloo ranks of some releases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.releases.ranks import Ranks, assert_nothing_wrong
from vllm_eplb_plugin.recording.reader import read_recordings

WINDOW = 8
PUT_BACK = 48
"""After this step experts go back to the first placement."""


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("planning", [None, {"policy": "incremental"}])
def test_windows_are_what_was_planned_from_and_placements_what_was_committed(
    use_async: bool, planning: dict[str, Any] | None, some_ranks: Ranks, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    loads = np.repeat(random.integers(1, 50, (6, 8)), 10, axis=0)
    # In steps that serve nobody, vLLM's own window stays longer on the rank than on others.
    dummies = 10_000 if planning is None else 3
    arguments = {"window": WINDOW, "interval": 10, "dummies": dummies, "put_back": PUT_BACK}
    reports = some_ranks(
        scenario="planned",
        arguments=arguments | {"loads": loads.tolist()},
        use_async=use_async,
        settings={"recording": {"dir": str(tmp_path)}, "planning": planning},
    )
    assert_nothing_wrong(reports)
    [recording] = read_recordings(tmp_path)
    assert recording.served.shape.slots == 12
    assert recording.served.expert_bytes == (6 * 4 + 4 * 2,) * 3
    assert (recording.served.interval_steps, recording.served.window_steps) == (10, WINDOW)
    # One of its rearrangements put experts back, which plans from no load.
    assert len(recording.windows) == reports[0]["rearrangements"] - 1 >= 6
    counts_where_caused = planning is not None or not use_async
    for window in recording.windows:
        # After experts went back, loads of the steps before count no longer.
        first = max(PUT_BACK if window.step > PUT_BACK else 0, window.step - WINDOW)
        steps = np.arange(first, window.step) + 1
        true = (loads[steps - 1] * (1 + (steps % dummies != 0))[:, None]).sum(axis=0)
        assert len(window.slices) == (1 if planning is None else 4)
        if counts_where_caused:
            assert window.load.tolist() == [true.tolist()] * 3
        else:
            assert window.load.sum() == 3 * true.sum()
    placements = [one.physical_to_logical.tolist() for one in recording.placements]
    seen = [models[0] for models in (reports[0]["initial"], *reports[0]["placements"])]
    assert placements == seen
    assert {one.outcome for one in recording.outcomes} <= {"finished", "skipped"}
    assert len(recording.outcomes) >= len(recording.windows)
