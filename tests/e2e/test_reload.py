# SPDX-License-Identifier: Apache-2.0
"""A served model whose weights are reloaded after experts have moved answers as before."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, serving
from tests.e2e.requests import answers, post


def test_answers_are_the_same_after_a_reload_and_after_one_amid_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In sync mode tests/releases/test_new_weights.py does the same with two ranks.
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    eplb = {
        "window_size": 10,
        "step_interval": 10,
        "num_redundant_experts": 4,
        "use_async": True,
    }
    plugin = {"loopback": True, "check_weights": True, "rank_timeout_s": 3.0}
    arm = {"name": "reloaded", "eplb": eplb, "plugin": plugin}
    events = tmp_path / "events"
    extension = "eval.serving.kept_experts.KeptExperts"
    with serving(tmp_path, arm, events, "--worker-extension-cls", extension) as server:
        assert not experts_are_elsewhere(events)
        status, said = post(server.url, "collective_rpc", method="keep_experts")
        assert status == 200 and said != '{"results":["0"]}', said
        first = answers(server.url)
        assert experts_are_elsewhere(events)
        refusals = 0
        while (said := post(server.url, "collective_rpc", method="reload_experts"))[0] != 200:
            # Dummy steps run on for a while after the last answer.
            assert "is refused, and serving goes on" in (tmp_path / "server.log").read_text()
            refusals += 1
            assert refusals < 10, said
        assert not experts_are_elsewhere(events)
        assert answers(server.url) == first
        with ThreadPoolExecutor(1) as pool:
            meanwhile = pool.submit(answers, server.url)
            time.sleep(0.5)
            post(server.url, "collective_rpc", method="reload_experts")
            assert meanwhile.result() == first
        assert answers(server.url) == first
        log = (tmp_path / "server.log").read_text()
    assert "check failed" not in log and "have changed in place" not in log


def experts_are_elsewhere(events: Path) -> bool:
    """Whether the last placement that was told is another than the first."""
    time.sleep(0.5)
    lines = [json.loads(line) for line in (events / "rank0.jsonl").open()]
    placements = [e["physical_to_logical_map"] for e in lines if e["event"] == "placement"]
    return bool(placements[0] != placements[-1])
