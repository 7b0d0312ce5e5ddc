# SPDX-License-Identifier: Apache-2.0
"""A vLLM that is none of the tested releases moves experts and moves them back, or is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.releases.ranks import Ranks, assert_nothing_wrong, refusal
from vllm_eplb_plugin.compatibility import Support
from vllm_eplb_plugin.engine import self_test

UNTESTED = "0.32.1rc1.dev7+gabc"


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Of both ranks, without what differs from run to run."""
    lines = [line for rank in range(2) for line in (folder / f"rank{rank}.jsonl").open()]
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if name not in ("time", "seconds", "planning_seconds")
        }
        for line in lines
    ]


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("redundant", [0, 4, 8])
def test_nothing_but_a_line_of_the_log_tells_of_it(
    redundant: int, use_async: bool, installed: Ranks, tmp_path: Path
) -> None:
    job = {"use_async": use_async, "models": 2, "redundant": redundant}
    tested = installed(events_dir=str(tmp_path / "tested"), **job)
    before = len(installed.log.read_text())
    untested = installed(events_dir=str(tmp_path / "untested"), version=UNTESTED, **job)
    assert_nothing_wrong(untested)
    assert untested == tested
    assert read_events(tmp_path / "untested") == read_events(tmp_path / "tested")
    log = installed.log.read_text()[before:]
    assert (
        f"vLLM {UNTESTED} (untested, overridden as 0.32.0, tried on the MoE layers [0, 2] " in log
    )


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("changed_body", "differs"),
    [
        ("moves_nothing_on_rank_1", "to other ranks, rank 1: layer 0: slots [6, 7, 8, 9, 10, 11]"),
        (
            "swaps_two_experts_of_the_last_layer_on_the_way_back",
            "back, rank 0: layer 2: slots [0, 1] do not hold the weights of their experts",
        ),
        ("commits_nothing", "rank 0: layer 0, slot 0 was to get logical expert 1, not 0"),
        ("forgets_replica_counts_on_rank_1", "rank 1: layer 1: the router does not find logical"),
    ],
)
def test_another_body_behind_the_same_signature_is_refused_on_every_rank(
    changed_body: str, differs: str, use_async: bool, installed: Ranks
) -> None:
    job = {"changed_body": changed_body, "use_async": use_async, "version": UNTESTED}
    message, log = refusal(installed, **job)
    assert "SelfTestError: vLLM 0.32.1rc1.dev7+gabc is none of the tested releases" in message
    assert "not what 0.32.0 does, whose overrides it got" in message
    assert differs in message
    for way_out in (
        "Install one of",
        "without --enable-eplb",
        "EPLB_PLUGIN='{\"enabled\": false}'",
    ):
        assert way_out in message
    assert log.count("engine.self_test.SelfTestError: ") == 2


def test_a_rank_that_fails_alone_ends_all_of_them_and_says_why(installed: Ranks) -> None:
    message, log = refusal(installed, changed_body="fails_on_rank_1", version=UNTESTED)
    assert "SelfTestError: vLLM 0.32.1rc1.dev7+gabc" in message
    assert "whose overrides it got: TypeError: an argument of another kind." in log


def test_a_tested_release_is_not_tried(installed: Ranks) -> None:
    _, log = refusal(installed, changed_body="fails_on_rank_1")
    assert "an argument of another kind" in log
    assert "SelfTestError" not in log


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (
            {"elastic": True, "redundant": 8},
            "with elastic EP, ranks that join get their experts only later",
        ),
        (
            {
                "scenario": "layers",
                "arguments": {"layers": [[["float32", [6]]]] * 3, "unfilled": -1, "dummy": True},
                "settings": {"check_weights": False},
            },
            "weights cannot be compared, layer 0 of model0: slot 8 was loaded with",
        ),
    ],
)
def test_where_it_cannot_be_tried_the_log_says_why(
    job: dict[str, Any], reason: str, installed: Ranks
) -> None:
    before = len(installed.log.read_text())
    installed(version=UNTESTED, rearrangements=1, **job)
    log = installed.log.read_text()[before:]
    assert f"EPLB of this untested vLLM was not tried before serving: {reason}" in log
    assert "overridden as 0.32.0, not tried before serving)" in log


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"num_moe_layers": 0}, "no MoE layer"),
        ({"num_logical_experts": 1}, "fewer logical experts than EP ranks"),
        ({"hip": "7.0"}, "on ROCm"),
        ({"world_size": 4}, "vLLM before 0.20 moves weights over a group of more ranks"),
    ],
)
def test_it_is_left_out_where_it_could_not_pass_or_would_hang(
    state: dict[str, Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = {"num_moe_layers": 3, "num_logical_experts": 8, "hip": None, "world_size": 2, **state}
    untested = Support("0.18.2", "0.18.1", tested=False)
    monkeypatch.setattr(self_test, "installed_support", lambda: untested)
    monkeypatch.setattr(torch.version, "hip", values["hip"])
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: values["world_size"])
    group: Any = SimpleNamespace(rank=lambda: 0, size=lambda: 2)
    parallel_config = SimpleNamespace(enable_elastic_ep=False)
    model_state = SimpleNamespace(model=SimpleNamespace(**values))
    with caplog.at_level("WARNING"):
        result = self_test.run_self_test(
            SimpleNamespace(parallel_config=parallel_config), model_state, group
        )
    assert result == "not tried before serving"
    assert reason in caplog.text
