# SPDX-License-Identifier: Apache-2.0
"""Arms that run elsewhere are asked until they are decided, too, as far as their evidence goes."""

import pytest

from tests.builders.elsewhere import deployments, url_config
from tests.builders.harness import Harness, gsm8k_task, write_gsm8k

TASKS = [gsm8k_task(questions="enough", concurrency=16)]
GATE = {"noise_floor": False, "margin_points": 3, "rearrangements": 5, "moe_layers": 4}


@pytest.mark.parametrize(("events", "expected"), [(True, 200), (False, 1319)])
def test_an_arm_stops_where_events_show_that_experts_moved_and_metrics_cannot_show_all(
    forked_harness: Harness, events: bool, expected: int
) -> None:
    harness = forked_harness
    harness.environment["GSM8K_DIR"] = str(write_gsm8k(harness.folder / "whole", 1319))
    with deployments(harness.folder, "off", "sync") as servers:
        folder = harness.folder / "events" if events else None
        ended = harness.run(config=url_config(servers, folder, tasks=TASKS, gate=GATE))

    assert ended.returncode == (0 if events else 3), ended.stdout + ended.stderr
    _, sync = harness.result()["arms"]
    [task] = sync["tasks"]
    assert (task["questions"], task["decision"]["found_after"]) == (expected, 200)
    assert harness.evaluate("gate", "runs/small").returncode == ended.returncode
