# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench` measures both sides and writes what it saw; how fast is not tested."""

import functools
import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from tests.builders import rank_jobs
from tests.releases.conftest import fetch
from vllm_eplb_plugin.bench import commit, step, timing, transfer_command
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape, parse_shape
from vllm_eplb_plugin.bench.transfer.expert_sizes import parse_expert_sizes
from vllm_eplb_plugin.bench.transfer.task import Task
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.releases import RELEASES


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
    hooks = ("no settings", "events", "all hooks")
    modes = [f"{mode}, {settings}" for mode in ("sync", "async") for settings in hooks]
    assert [row["what"] for row in rows] == modes
    assert all((row["threads_us"] or 0) > 0 for row in rows if row["what"].startswith("async"))
    for row in rows:
        assert row["stock"]["host_us"]["median"] > 0
        assert row["more_us"]["p5"] <= row["more_us"]["median"] <= row["more_us"]["p95"]


TRANSFER = ("transfer", "--shape", "4096+2048", "--rounds", "3", "--link-mb", "0.1")


def test_a_transfer_is_measured_by_every_way_that_there_is(tmp_path: Path) -> None:
    files = {"--json": tmp_path / "transfer.json", "--plot": tmp_path / "transfer.png"}
    options = [str(part) for pair in files.items() for part in pair]
    done = run(*TRANSFER, *options)
    assert done.exit_code == 0, done.output
    written = json.loads(files["--json"].read_text())
    found = {(row["share"], row["way"]) for row in written["rows"]}
    shares = ("all, whole", "all", "half", "10 %")  # of four slots, 1 % is as many as 10 %
    assert found == {(share, way) for share in shares for way in ("gloo", "peers")}
    assert written["absent"]["4096+2048"]["nixl"] == "not installed"
    assert set(written["rates"]) == {"peer", "memory"}
    for row in written["rows"]:
        times = row["seconds"]
        assert 0 < times["held"]["median"] <= times["transfer"]["median"]
        assert times["transfer"]["median"] < times["layer"]["p90"]
        assert row["nbytes"] == row["received"] * 6144
        assert row["share_of_floor"] > 0
    assert files["--plot"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("release", ["0.23.0", "0.26.0", "0.33.0"])
def test_a_transfer_is_measured_on_the_releases_that_have_its_communicators(
    release: str, tmp_path: Path
) -> None:
    [found] = [one for one in RELEASES if one.version == release]
    file = tmp_path / "transfer.json"
    done = subprocess.run(
        [sys.executable, "-m", "vllm_eplb_plugin.cli", "bench", *TRANSFER, "--json", str(file)],
        env=os.environ | {"PYTHONPATH": str(fetch(found))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    assert written["vllm"].startswith(release)
    assert {row["way"] for row in written["rows"]} == {"gloo", "peers"}


def test_a_way_that_leaves_a_wrong_expert_is_no_benchmark_and_a_taken_port_no_reason() -> None:
    small = parse_expert_sizes("64")
    wrong = r"rank 1 .* all, whole, gloo: slot 4 of layer 0 does not"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        task = Task(2, "cpu", 0, taken, (small,), ("gloo",), 4, 2, 3, 1.0, 4096)
        with pytest.raises(BenchError, match=wrong):
            transfer_command._on_a_free_port(rank_jobs.commit_nothing_on_rank_1, task, 120.0)


def test_transfers_are_not_compared_on_a_vllm_that_makes_communicators_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vllm.version.__version__", "0.22.1")
    done = run(*TRANSFER)
    assert done.exit_code == 2
    assert "on vLLM 0.23 and later" in " ".join(done.output.split())


def test_a_way_that_is_none_is_refused() -> None:
    done = run("transfer", "--way", "pigeon")
    assert done.exit_code == 2
    assert "--way pigeon: there are gloo, nccl, pynccl, nixl, peers" in done.output


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


def test_a_step_begins_where_the_worker_is_called() -> None:
    """So that what hangs on the worker's own methods is in the time, too."""
    workers = step.workers_of_release()
    for name in ("execute_model", "sample_tokens"):
        hooked = getattr(workers["plugin"], name)
        assert inspect.unwrap(hooked) is getattr(workers["stock"], name) is not hooked


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
