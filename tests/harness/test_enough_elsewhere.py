# SPDX-License-Identifier: Apache-2.0
"""An arm that runs elsewhere is asked until it is decided, too."""

from tests.builders.elsewhere import deployments, url_config
from tests.builders.harness import Harness, gsm8k_task, write_gsm8k

TASKS = [gsm8k_task(questions="enough", concurrency=16)]
GATE = {"noise_floor": False, "margin_points": 3, "rearrangements": 5, "moe_layers": 4}


def test_an_arm_stops_where_its_events_show_that_experts_moved(forked_harness: Harness) -> None:
    harness = forked_harness
    harness.environment["GSM8K_DIR"] = str(write_gsm8k(harness.folder / "whole", 1319))
    with deployments(harness.folder, "off", "sync") as servers:
        config = url_config(servers, harness.folder / "events", tasks=TASKS, gate=GATE)
        ended = harness.run(config=config)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    _, sync = harness.result()["arms"]
    [task] = sync["tasks"]
    assert (task["questions"], task["decision"]["found_after"]) == (200, 200)
    assert harness.evaluate("gate", "runs/small").returncode == 0
