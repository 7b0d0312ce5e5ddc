# SPDX-License-Identifier: Apache-2.0
"""The stress run: its load, what ends it early, what it measures and how it judges."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from eval.activity.counts import Activity
from eval.activity.finished import finished_after
from eval.cli import app
from eval.errors import RunFolderError
from eval.load.churn import Load, keep_asking
from eval.report.memory_plot import write_plot
from eval.results.lock import alone_in
from eval.results.memory import MemorySample, growth_mib, with_rearrangements
from eval.results.schema import Machine, Versions
from eval.results.stress import StressResult, StressRule, growths, judge, thinned
from eval.serving.memory import host_memory_mib
from tests.builders.events import finished, told, write_events
from tests.builders.harness import Harness, small_config
from vllm_eplb_plugin.observe.events import Source


class Completions(BaseHTTPRequestHandler):
    """Streams tokens, two of them together; after ``good`` requests it fails in some way."""

    good = 10**9
    then = ""
    asked: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(request)
        bad = len(self.asked) > self.good
        if bad and self.then == "refuses":
            self.send_error(500, "engine dead")
            return
        self.send_response(200)
        self.end_headers()
        if bad and self.then == "hangs":
            time.sleep(5)
            return
        tokens = request["max_tokens"] - (bad and self.then == "ends early")
        chunks: list[dict[str, Any]] = [{"choices": [{"text": "a"}]}] * (tokens - 1)
        chunks.append({"choices": [], "usage": {"completion_tokens": tokens}})
        if bad and self.then == "errs":
            chunks = [{"error": {"message": "engine dead"}}]
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Completions, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(url: str, seconds: float, hang_seconds: float = 60) -> tuple[Load, int]:
    watched: list[int] = []
    load = keep_asking(
        url, "model", 3, seconds, hang_seconds, lambda one: watched.append(one.tokens)
    )
    return load, len(watched)


def test_completions_of_all_lengths_are_asked_for_until_the_end(url: str) -> None:
    load, watched = ask(url, 1.0)
    assert load.problem is None
    assert load.requests == len(Completions.asked) >= 3
    assert load.tokens == sum(request["max_tokens"] for request in Completions.asked)
    assert len({request["max_tokens"] for request in Completions.asked}) >= 3
    assert len({len(request["prompt"]) for request in Completions.asked}) >= 3
    assert watched >= 1


def test_two_runs_ask_the_same(url: str) -> None:
    ask(url, 0.3)
    first, Completions.asked[:] = list(Completions.asked), []
    ask(url, 0.3)
    for stream in range(3):
        of_stream = [
            [one for one in asked if one["prompt"].startswith(f"{stream} ")]
            for asked in (first, Completions.asked)
        ]
        length = min(map(len, of_stream))
        assert length > 0
        assert of_stream[0][:length] == of_stream[1][:length]


@pytest.mark.parametrize(
    ("then", "problem"),
    [
        ("refuses", "a request failed with 500"),
        ("errs", "engine dead"),
        ("ends early", "tokens: the server ended it"),
        ("hangs", "no token of any completion for"),
    ],
)
def test_what_goes_wrong_ends_it_at_once(
    then: str, problem: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Completions, "good", 5)
    monkeypatch.setattr(Completions, "then", then)
    load, _ = ask(url, 60, hang_seconds=1)
    assert load.problem is not None
    assert problem in load.problem


@pytest.mark.parametrize(
    ("values", "growth"),
    [
        ([9, 9, *[5] * 6, 7, 7], 2.0),
        ([0, 0, *[5] * 8], 0.0),
        (list(range(100)), 60.0),
        ([1] * 9, None),
        ([], None),
    ],
)
def test_growth_leaves_warming_up_out(values: list[int], growth: float | None) -> None:
    assert growth_mib(values) == growth


def test_samples_tell_how_many_rearrangements_were_finished_by_then() -> None:
    samples = [MemorySample(seconds=seconds, host=1, gpu=None) for seconds in (0, 2, 4.5)]
    counted = with_rearrangements(samples, [0.5, 1.9, 2.1, 9.0])
    assert [sample.rearrangements for sample in counted] == [0, 2, 3]


def test_a_rearrangement_is_finished_when_it_is_for_every_model_and_stage(tmp_path: Path) -> None:
    ranks = [
        [told(90, finished(1)), told(102, finished(2)), told(107, finished(3))],
        [told(103, finished(2), Source(1, 1, 0))],
        [
            told(104, finished(2, model_index=1), Source(0, 2, 1)),
            told(130, finished(4), Source(0, 2, 1)),
        ],
    ]
    write_events(tmp_path, *ranks)
    assert finished_after(tmp_path, 100, 120) == [4, 7]
    assert finished_after(tmp_path / "none", 100, 120) == []


def test_memory_of_a_session_is_that_of_all_its_processes() -> None:
    script = (
        "import subprocess, sys; held = bytearray(80 * 2**20); {}; print(1, flush=True); input()"
    )
    child = script.format("0")
    started = f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=0)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script.format(started)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == [b"1\n"] * 2
        assert 160 <= host_memory_mib(parent.pid) < 400
        assert host_memory_mib(os.getsid(0)) != host_memory_mib(parent.pid)
    finally:
        parent.communicate(b"\n\n", timeout=10)


def result(**changes: Any) -> StressResult:
    nothing = dict.fromkeys(Versions.model_fields)
    samples = [MemorySample(seconds=2 * one, host=9000, gpu=2000) for one in range(20)]
    values = {
        "name": "cpu",
        "arm": "async",
        "started": datetime.now(timezone.utc),
        "seconds": 40,
        "streams": 3,
        "requests": 50,
        "tokens": 4000,
        "problem": None,
        "evidence": Activity(
            rearrangements=9, weight_checks=90, map_checks=90, checking_ranks=[0, 1]
        ),
        "ranks": 2,
        "logged_rearrangements": 9,
        "memory": samples,
        "memory_of_processes": True,
        "gpu_growth_mib": 0.0,
        "host_growth_mib": 0.0,
        "machine": Machine(processor="p", accelerators=[], cores=1, memory_gib=1),
        "versions": Versions(**{**nothing, "python": "3"}),
        "config_sha256": "",
        "command": [],
    }
    return StressResult(**{**values, **changes})


def failed(plugin: bool = True, **changes: Any) -> list[str]:
    rules = judge(result(**changes), plugin, plugin, 5, 60)
    return [rule.rule for rule in rules if not rule.passed]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"problem": "the server hangs"}, "answers"),
        ({"requests": 0}, "answers"),
        ({"gpu_growth_mib": 65.0}, "gpu_memory"),
        ({"gpu_growth_mib": None}, "gpu_memory"),
        ({"host_growth_mib": 600.0}, "host_memory"),
    ],
)
def test_each_rule_fails_alone(changes: dict[str, Any], rule: str) -> None:
    assert failed() == []
    assert failed(**changes) == [rule]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"rearrangements": 4}, "rearrangements"),
        ({"failed": 1}, "no_failed_rearrangements"),
        ({"under_way_seconds": 61.0}, "no_stall"),
        ({"placements_rejected": 1}, "no_rejected_placements"),
        ({"weight_mismatches": 1}, "weights"),
        ({"weight_checks": 0}, "weights"),
        ({"checking_ranks": [0]}, "every_rank_checked"),
        ({"map_mismatches": 1}, "maps"),
    ],
)
def test_each_rule_of_events_fails_alone(changes: dict[str, Any], rule: str) -> None:
    evidence = result().evidence.model_copy(update=changes)
    assert failed(evidence=evidence) == [rule]


def test_on_a_cpu_memory_is_told_and_not_judged() -> None:
    on_cpu = [MemorySample(seconds=2 * one, host=9000, gpu=None) for one in range(20)]
    assert failed(memory=on_cpu, host_growth_mib=600.0, gpu_growth_mib=None) == []
    rows = result(memory=on_cpu, host_growth_mib=600.0).table().columns
    assert list(rows[0].cells)[-1] == "host memory"
    assert list(rows[2].cells)[-1] == "+600 MiB"


def test_without_the_plugin_vllm_s_log_counts() -> None:
    assert failed(plugin=False, evidence=Activity()) == []
    assert failed(plugin=False, evidence=Activity(), logged_rearrangements=4) == ["rearrangements"]


def test_memory_of_whole_gpus_is_said_to_be_so() -> None:
    rules = judge(result(memory_of_processes=False), True, True, 5, 60)
    (gpu,) = [rule for rule in rules if rule.rule == "gpu_memory"]
    assert "of the GPUs, whoever uses them" in gpu.saw


def test_a_result_can_be_read_again_and_drawn(tmp_path: Path) -> None:
    samples = with_rearrangements(result().memory, [3.0, 9.0])
    seen = result(memory=thinned(samples * 100))
    assert 250 < len(seen.memory) <= 300
    assert growths(seen.memory) == (0.0, 0.0)
    seen.write(tmp_path / "stress.json")
    assert StressResult.model_validate_json((tmp_path / "stress.json").read_text()) == seen
    write_plot(seen, tmp_path / "stress.png")
    assert (tmp_path / "stress.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            ["--arm", "asink"],
            "--arm asink: eval/config/presets/cpu.yaml has no such arm, it has off, sy",
        ),
        (["--set", "arms.async.eplb.windw_size=1"], "unknown key, the nearest is 'window_size'"),
        (["--json", "nowhere/stress.json"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_run_is_said_before_anything_starts(options: list[str], rule: str) -> None:
    done = CliRunner().invoke(app, ["stress", "eval/config/presets/cpu.yaml", *options])
    assert rule in str(done.exception)


@pytest.fixture
def run(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """The whole command with the stand-in for vLLM: exit code, result, what it prints."""

    def run(*options: str, arm: str = "async", **behaviour: Any) -> tuple[int, dict[str, Any], str]:
        values = small_config()
        values["serve"] = {"executable": str(harness.executable), **values["serve"]}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        for name, value in {**harness.environment, "FAKE_VLLM": json.dumps(behaviour)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        # Ten samples are the least.
        monkeypatch.setattr("eval.load.churn._WATCH_SECONDS", 0.1)
        limits = ["--seconds", "2", "--hang-seconds", "1", "--rearrangements", "3"]
        command = ["stress", "config.yaml", "--arm", arm, *limits, *options]
        done = CliRunner().invoke(app, command)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        found = json.loads((tmp_path / "runs/stress/stress.json").read_text())
        return done.exit_code, found, done.output

    return run


def rules_failed(found: dict[str, Any]) -> list[str]:
    return [rule["rule"] for rule in found["rules"] if not rule["passed"]]


def test_an_arm_under_load_passes(run: Any, tmp_path: Path) -> None:
    # One answer of the stand-in takes a moment, so that its events stay few.
    behaviour = {"seconds_per_request": 0.05}
    code, found, output = run("--json", "copy.json", "--plot", "plot.png", **behaviour)
    assert (code, rules_failed(found)) == (0, []), output
    assert found == json.loads((tmp_path / "copy.json").read_text())
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert found["requests"] >= 16
    assert found["ranks"] == 2 and found["evidence"]["checking_ranks"] == [0, 1]
    counted = [sample["rearrangements"] for sample in found["memory"]]
    assert counted == sorted(counted)
    assert 3 <= counted[-1] <= found["evidence"]["rearrangements"]
    assert "every_rank_checked" in output


@pytest.mark.parametrize(
    ("behaviour", "rule", "said"),
    [
        ({"hang_after": 20}, "answers", "no token of any completion for"),
        ({"exit_after": 20}, "answers", "RuntimeError: the engine core died"),
        ({"mismatched_slots": [3]}, "weights", "wrong"),
        ({"rearrangements": 1}, "rearrangements", "0, at least 3 were wanted"),
    ],
)
def test_what_breaks_under_load_fails_and_says_why(
    behaviour: dict[str, Any], rule: str, said: str, run: Any
) -> None:
    code, found, _ = run(seconds_per_request=0.05, **behaviour)
    assert code == 1
    assert rule in rules_failed(found)
    (saw,) = [one["saw"] for one in found["rules"] if one["rule"] == rule]
    assert said in saw
    if rule == "answers":
        assert "The end of its log" in saw


def test_an_arm_without_eplb_owes_no_rearrangements(run: Any) -> None:
    code, found, output = run(arm="off", seconds_per_request=0.05)
    assert (code, rules_failed(found)) == (0, []), output
    assert all(sample["rearrangements"] is None for sample in found["memory"])
    assert "weights" not in {rule["rule"] for rule in found["rules"]}


def test_another_run_of_a_folder_in_use_is_refused(run: Any, tmp_path: Path) -> None:
    kept = tmp_path / "runs" / "stress" / "stress.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with (
        alone_in(kept.parent, ""),
        pytest.raises(RunFolderError, match="runs/stress: wait for it, or give .* --folder"),
    ):
        run()
    assert kept.exists()


@pytest.mark.usefixtures("default_signals")
def test_an_interrupted_run_has_no_verdict(run: Any, tmp_path: Path) -> None:
    log, ended = tmp_path / "runs/stress/server.log", threading.Event()

    def interrupt_once_started() -> None:
        while not log.exists() and not ended.wait(0.05):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    interrupt = threading.Thread(target=interrupt_once_started)
    interrupt.start()
    try:
        with pytest.raises(FileNotFoundError):
            run("--seconds", "60", seconds_per_request=0.05)
    finally:
        ended.set()
        interrupt.join()
    assert log.exists()


def test_a_load_that_is_made_up_needs_no_questions(harness: Harness, run: Any) -> None:
    harness.environment["GSM8K_DIR"] = "nowhere"
    code, found, output = run(seconds_per_request=0.05)
    assert (code, rules_failed(found)) == (0, []), output


def test_brackets_of_a_log_are_shown() -> None:
    problem = "RuntimeError: [/pytorch/gloo/pair.cc:553] lost"
    console = Console(width=200, record=True, file=io.StringIO())
    broken = result(problem=problem)
    broken.rules = [StressRule(rule="answers", passed=False, saw=problem)]
    console.print(broken.table())
    assert problem in console.export_text()
