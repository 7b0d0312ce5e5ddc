# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench` measures both sides and writes what it saw; how fast is not tested."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from vllm_eplb_plugin.bench import commit, step, timing
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape, parse_shape
from vllm_eplb_plugin.cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def test_a_commit_is_measured_for_both_and_written(tmp_path: Path) -> None:
    files = {"--json": tmp_path / "commit.json", "--plot": tmp_path / "commit.png"}
    options = [str(part) for pair in files.items() for part in pair]
    done = run("commit", "--shape", "3x8+4", "--rounds", "4", *options)
    assert done.exit_code == 0, done.output
    written = json.loads(files["--json"].read_text())
    assert written["command"] == "commit"
    assert written["machine"]["vllm"].startswith("vllm")
    rows = {row["what"]: row for row in written["rows"]}
    assert rows["memory of l2p"]["stock"] == {"bytes": 3 * 8 * 1024 * 8}
    assert rows["memory of l2p"]["plugin"] == {"bytes": 3 * 8 * 5 * 8}
    for what in ("one layer", "whole map"):
        for side in ("stock", "plugin"):
            for time in rows[what][side].values():
                assert 0 < time["p5"] <= time["median"] <= time["p95"]
    assert files["--plot"].read_bytes().startswith(b"\x89PNG")


def test_a_plan_is_measured_for_both() -> None:
    done = run("plan", "--shape", "3x8+4/2x2x4", "--rounds", "3")
    assert done.exit_code == 0, done.output
    assert "plan, 4 ranks on 2 nodes" in done.output


def test_a_step_is_measured_for_both_in_every_mode(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    done = run("step", "--shape", "3x8+4", "--rounds", "4", "--json", str(file))
    assert done.exit_code == 0, done.output
    assert "plugin - vLLM" in done.output
    rows = json.loads(file.read_text())["rows"]
    modes = ["sync, no events", "sync, events", "async, no events", "async, events"]
    assert [row["what"] for row in rows] == modes
    for row in rows:
        assert row["stock"]["host_us"]["median"] > 0
        assert row["more_us"]["p5"] <= row["more_us"]["median"] <= row["more_us"]["p95"]


def test_a_step_is_that_of_vllm_and_that_of_the_plugin_and_both_are_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm.distributed import parallel_state
    from vllm.distributed.eplb.eplb_state import EplbState

    vllms_own, intervals = EplbState.step, [0.02]  # the plugin would lower it
    monkeypatch.setattr(sys, "getswitchinterval", lambda: intervals[-1])
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    with step.both_classes() as classes:
        assert classes["stock"].step is vllms_own
        assert classes["plugin"].step is not vllms_own
        assert inspect.unwrap(classes["plugin"].step) is vllms_own
    step.bench_step(Shape("tiny", 2, 8, 4), 2, torch.device("cpu"))
    assert EplbState.step is vllms_own
    assert min(intervals) < intervals[-1] == intervals[0]
    assert not parallel_state.model_parallel_is_initialized()


def test_a_step_that_records_no_load_is_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_eplb_plugin.engine import state_hooks

    def do_nothing(original: Callable[..., None]) -> Callable[..., None]:
        return functools.wraps(original)(lambda state: None)

    idle = tuple(
        replace(override, replace=do_nothing) if override.target.endswith(".step") else override
        for override in state_hooks.OVERRIDES
    )
    monkeypatch.setattr(state_hooks, "OVERRIDES", idle)
    with pytest.raises(BenchError, match="recorded different loads"):
        step.bench_step(Shape("tiny", 2, 8, 4), 2, torch.device("cpu"))


def test_more_is_what_a_call_took_longer_than_the_other_of_its_round() -> None:
    slow = timing.Times(host=[3e-6, 5e-6, 10e-6])
    fast = timing.Times(host=[1e-6, 4e-6, 1e-6])
    assert timing.difference(slow, fast) == {"p5": 1.1, "median": 2.0, "p95": 8.3}


def test_different_results_are_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(state: object, new: torch.Tensor) -> None:
        commit.commit_layer(state, new[0].flip(0), 0)

    monkeypatch.setattr(commit, "commit_model", wrong)
    with pytest.raises(BenchError, match="derived different maps"):
        commit.bench_commit(Shape("tiny", 2, 8, 4), 2, torch.device("cpu"))


def test_vllm_0_18_is_sent_to_its_own_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm.version.__version__", "0.18.1")
    done = run("commit", "--shape", "3x8+4")
    assert done.exit_code == 2
    assert "scripts/compare_maps.py" in done.output


def test_both_sides_are_called_once_a_round_in_turns() -> None:
    calls: list[tuple[str, int]] = []
    ways = {name: lambda number, name=name: calls.append((name, number)) for name in ("a", "b")}
    times = timing.alternate(ways, 4, torch.device("cpu"))
    assert calls == [(name, number) for number in range(timing.WARM_UP + 4) for name in ("a", "b")]
    assert all(len(time.host) == len(time.done) == 4 for time in times.values())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("58by256", "shape '58by256' is neither LAYERSxLOGICAL"),
        ("0x8+4", "layers is 0, not 1 or more"),
        ("3x8+4/3x1x2", "8 logical are not divisible by 3 groups"),
        ("3x8+4/1x1x5", "12 slots are not divisible by 5 ranks"),
        ("3x8+4/2x3x4", "4 ranks are not divisible by 3 nodes"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(text: str, rule: str) -> None:
    done = run("plan", "--shape", text)
    assert done.exit_code == 2
    assert rule in done.output


def test_a_shape_is_found_by_its_name() -> None:
    assert parse_shape("deepseek-v3") is SHAPES[2]
    assert parse_shape("58x256+32/8x4x32") == Shape("58x256+32/8x4x32", 58, 256, 32, 8, 4, 32)


def test_nothing_is_measured_for_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    done = run("plan", "--json", str(tmp_path / "nowhere" / "plan.json"))
    assert done.exit_code == 2
    assert "there is no folder" in done.output
