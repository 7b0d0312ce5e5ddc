# SPDX-License-Identifier: Apache-2.0
"""A served model whose weights are reloaded after experts have moved answers as before."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders.waiting import wait_until
from tests.e2e.conftest import ROOT, events_of, serving
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
    plugin = {"loopback": True, "check_weights": True, "rank_timeout_s": 10.0}
    arm = {"name": "reloaded", "eplb": eplb, "plugin": plugin}
    events = tmp_path / "events"
    extension = "eval.serving.kept_experts.KeptExperts"
    with serving(tmp_path, arm, events, "--worker-extension-cls", extension) as server:
        assert len(placements(events)) == 1
        status, said = post(server.url, "collective_rpc", method="keep_experts")
        assert status == 200 and said != '{"results":["0"]}', said
        first = answers(server.url)
        wait_until(lambda: placements(events)[-1] != placements(events)[0])
        refusals, told = 0, len(placements(events))
        while (said := post(server.url, "collective_rpc", method="reload_experts"))[0] != 200:
            # Dummy steps run on for a while after the last answer.
            assert "is refused, and serving goes on" in (tmp_path / "server.log").read_text()
            refusals += 1
            assert refusals < 10, said
            told = len(placements(events))
        # Steps that follow may move experts again.
        wait_until(lambda: placements(events)[0] in placements(events)[told:])
        assert answers(server.url) == first
        with ThreadPoolExecutor(1) as pool:
            meanwhile = pool.submit(answers, server.url)
            time.sleep(0.5)
            post(server.url, "collective_rpc", method="reload_experts")
            assert meanwhile.result() == first
        assert answers(server.url) == first
        log = (tmp_path / "server.log").read_text()
    assert "check failed" not in log and "have changed in place" not in log


def placements(events: Path) -> list[list[list[int]]]:
    """Those that were told so far."""
    told = events_of(events / "rank0.jsonl")
    return [event["physical_to_logical_map"] for event in told if event["event"] == "placement"]
