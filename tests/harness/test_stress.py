# SPDX-License-Identifier: Apache-2.0
"""The stress run: its load, what ends it early, what it measures and how it judges."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from eval.activity.agreement import Agreement
from eval.activity.finished import finished_after
from eval.activity.totals import Activity
from eval.activity.vllm_log import LogSays
from eval.cli import app
from eval.config.schema import Config
from eval.errors import RunFolderError
from eval.judging.arms import arm_to_judge
from eval.judging.stress_rules import stress_rules
from eval.load.churn import Load, keep_asking
from eval.report.load import load_rows
from eval.report.memory_plot import write_plot
from eval.results.lock import alone_in
from eval.results.memory import MemorySample, MemoryUse, grown_by, with_rearrangements
from eval.results.schema import EXIT_CODES, ArmRun, RuleResult
from eval.results.stress import LoadResult, StressWorkload
from eval.results.stress_of_schema_3 import StressResult
from eval.serving.memory import host_memory_mib
from tests.builders.arms import arm
from tests.builders.completions import MALFORMED, Completions, completions_server
from tests.builders.events import finished, told, write_events
from tests.builders.harness import Harness, small_config
from vllm_eplb_plugin.observe.events import Source

NOT_TESTED = EXIT_CODES["not tested"]
EVIDENCE = sorted((Path(__file__).parents[2] / "docs/evidence").glob("*/stress.json"))


@pytest.fixture
def server() -> Iterator[Completions]:
    with completions_server() as served:
        yield served


def ask(url: str, seconds: float, hang_seconds: float = 60) -> tuple[Load, int]:
    watched: list[int] = []
    load = keep_asking(
        url, "model", 3, seconds, hang_seconds, lambda one: watched.append(one.tokens)
    )
    return load, len(watched)


def test_completions_of_all_lengths_are_asked_for_until_the_end(server: Completions) -> None:
    load, watched = ask(server.url, 1.0)
    assert load.problem is None
    assert load.requests == len(server.asked) >= 3
    assert load.tokens == sum(request["max_tokens"] for request in server.asked)
    assert len({request["max_tokens"] for request in server.asked}) >= 3
    assert len({len(request["prompt"]) for request in server.asked}) >= 3
    assert watched >= 1


def test_two_runs_ask_the_same(server: Completions) -> None:
    ask(server.url, 0.3)
    first, server.asked[:] = list(server.asked), []
    ask(server.url, 0.3)
    for stream in range(3):
        of_stream = [
            [one for one in asked if one["prompt"].startswith(f"{stream} ")]
            for asked in (first, server.asked)
        ]
        length = min(map(len, of_stream))
        assert length > 0
        assert of_stream[0][:length] == of_stream[1][:length]


@pytest.mark.parametrize(
    ("then", "problem"),
    [
        ("refuses", "a request failed with 500"),
        (MALFORMED["an error"], "engine dead"),
        ("ends early", "tokens: the server ended it"),
        ("hangs", "no token of any completion for"),
    ],
)
def test_what_goes_wrong_ends_it_at_once(then: str, problem: str, server: Completions) -> None:
    server.good, server.then = 5, then
    load, _ = ask(server.url, 60, hang_seconds=1)
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
    assert grown_by(values) == growth


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


CONFIG = Config.model_validate(small_config())
WORKLOAD = StressWorkload(seconds=40, streams=3, hang_seconds=60, rearrangements=5)
SAMPLES = [MemorySample(seconds=2 * one, host=9000, gpu=2000) for one in range(20)]
LOAD = LoadResult(requests=50, tokens=4000, problem=None)


def rules(
    name: str = "async",
    config: Config = CONFIG,
    memory: MemoryUse | None = None,
    load: LoadResult = LOAD,
    **changes: Any,
) -> dict[str, RuleResult]:
    memory = memory or MemoryUse.of(SAMPLES, True)
    run = arm(name, **{"tasks": [], "load": load, "memory": memory, **changes})
    configured = next(one for one in config.arms if one.name == name)
    told = run.rearrangements_started
    agreement = Agreement(told, told > 0)
    log = LogSays(True, run.logged_rearrangements, run.logged_rearrangements > 0)
    judged = arm_to_judge(config, configured, run, (), agreement, log)
    return {rule.rule: rule for rule in stress_rules(config.gate, WORKLOAD, judged)}


def not_passed(**changes: Any) -> dict[str, str]:
    found = rules(**changes)
    return {name: rule.verdict for name, rule in found.items() if rule.verdict != "passed"}


def grown(**changes: float | None) -> MemoryUse:
    return MemoryUse.of(SAMPLES, True).model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "rule", "verdict"),
    [
        ({"load": LOAD.model_copy(update={"problem": "hangs"})}, "answers", "failed"),
        ({"load": LOAD.model_copy(update={"requests": 0})}, "answers", "not tested"),
        ({"memory": grown(gpu_growth_mib=65.0)}, "gpu_memory", "failed"),
        ({"memory": grown(gpu_growth_mib=None)}, "gpu_memory", "not tested"),
        ({"memory": grown(host_growth_mib=600.0)}, "host_memory", "failed"),
        ({"memory": grown(host_growth_mib=None)}, "host_memory", "not tested"),
        ({"rearrangements": 4}, "rearrangements", "not tested"),
        ({"failed": 1}, "no_failed_rearrangements", "failed"),
        ({"under_way_seconds": 61.0}, "no_stall", "failed"),
        ({"placements_rejected": 1}, "no_rejected_placements", "failed"),
        ({"weight_mismatches": 1}, "weights", "failed"),
        ({"weight_checks": 0}, "weights", "not tested"),
        ({"checking_ranks": [0]}, "weights", "not tested"),
        ({"map_checking_ranks": [1]}, "maps", "not tested"),
        ({"map_mismatches": 1}, "maps", "failed"),
        ({"modes": ["sync"]}, "mode", "not tested"),
        ({"slots_changed": [4, 0, 4, 4]}, "slots_changed", "not tested"),
    ],
)
def test_each_rule_alone_decides(changes: dict[str, Any], rule: str, verdict: str) -> None:
    assert not_passed() == {}
    assert not_passed(**changes) == {rule: verdict}


def test_an_arm_without_eplb_fails_if_experts_moved() -> None:
    assert not_passed(name="off") == {}
    assert not_passed(name="off", logged_rearrangements=1) == {"no_rearrangements": "failed"}
    assert not_passed(name="off", rearrangements_started=1) == {"no_rearrangements": "failed"}


def test_on_a_cpu_memory_is_told_and_not_judged() -> None:
    on_cpu = [MemorySample(seconds=2 * one, host=9000 + 40 * one, gpu=None) for one in range(20)]
    memory = MemoryUse.of(on_cpu, False)
    assert memory.host_growth_mib == 480
    found = rules(memory=memory)
    assert not {"host_memory", "gpu_memory"} & found.keys()
    shown = dict(load_rows(ArmRun.model_validate({**dict(arm("async")), "memory": memory})))
    assert shown["host memory"] == "+480 MiB"


def test_without_the_plugin_vllm_s_log_counts() -> None:
    stock = small_config()
    stock["arms"][2]["plugin"] = {"enabled": False}
    config = Config.model_validate(stock)
    nothing = Activity().model_dump()
    assert not_passed(config=config, **nothing | {"logged_rearrangements": 5}) == {}
    assert not_passed(config=config, **nothing | {"logged_rearrangements": 4}) == {
        "rearrangements": "not tested"
    }


def test_memory_of_whole_gpus_is_said_to_be_so() -> None:
    found = rules(memory=MemoryUse.of(SAMPLES, False))
    assert "of the GPUs, whoever uses them" in found["gpu_memory"].saw


def test_a_long_run_keeps_few_samples_and_can_be_drawn(tmp_path: Path) -> None:
    memory = MemoryUse.of(with_rearrangements(SAMPLES, [3.0, 9.0]) * 100, True)
    assert 250 < len(memory.samples) <= 300
    assert (memory.gpu_growth_mib, memory.host_growth_mib) == (0.0, 0.0)
    write_plot(arm("async", memory=memory), tmp_path / "stress.png")
    assert (tmp_path / "stress.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", EVIDENCE, ids=lambda file: file.parent.name)
def test_kept_results_of_before_can_be_read(file: Path) -> None:
    seen = StressResult.model_validate_json(file.read_text())
    assert seen.rules and all(rule.passed for rule in seen.rules)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            ["--arm", "asink"],
            "--arm asink: eval/config/presets/cpu.yaml has no such arm, it has off, sy",
        ),
        (["--set", "arms.async.eplb.windw_size=1"], "unknown key, the nearest is 'window_size'"),
        (["--json", "nowhere/stress.json"], "there is no folder nowhere"),
        (["--hang-seconds", "inf"], "--hang-seconds inf: give a number that is finite"),
        (["--name", "a/b"], "--name a/b: a run is named by"),
        (["--folder", "docs"], "docs is there and is not that of a run"),
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
        limits = ["--seconds", "2", "--hang-seconds", "20", "--rearrangements", "3"]
        command = ["stress", "config.yaml", "--arm", arm, *limits, *options]
        done = CliRunner().invoke(app, command)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        found = json.loads((tmp_path / "runs/stress/result.json").read_text())
        return done.exit_code, found, done.output

    return run


def rules_broken(found: dict[str, Any]) -> list[str]:
    return [rule["rule"] for rule in found["rules"] if rule["verdict"] != "passed"]


def test_an_arm_under_load_passes(run: Any, tmp_path: Path) -> None:
    # One answer of the stand-in takes a moment, so that its events stay few.
    behaviour = {"seconds_per_request": 0.05}
    options = ("--json", "copy.json", "--plot", "plot.png", "--seconds", "5")
    code, found, output = run(*options, **behaviour)
    assert (code, rules_broken(found)) == (0, []), output
    assert found == json.loads((tmp_path / "copy.json").read_text())
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (found["kind"], found["verdict"], found["stress"]["streams"]) == ("stress", "passed", 16)
    (one,) = found["arms"]
    assert one["load"]["requests"] >= 16
    assert one["checking_ranks"] == [0, 1]
    counted = [sample["rearrangements"] for sample in one["memory"]["samples"]]
    assert counted == sorted(counted)
    assert 3 <= counted[-1] <= one["rearrangements"]
    assert "stress: passed" in output
    page = (tmp_path / "runs/stress/report.html").read_text()
    assert "Arm async under load" in page and "<svg" in page
    text = (tmp_path / "runs/stress/report.md").read_text()
    assert "| host memory |" in text and "python -m eval stress stress.yaml" in text
    assert "| threads |" in text and "open files and connections" in page


@pytest.mark.parametrize(
    ("behaviour", "rule", "said", "expected"),
    [
        ({"hang_after": 20}, "answers", "no token of any completion for", 1),
        ({"exit_after": 20}, "answers", "RuntimeError: the engine core died", 1),
        ({"mismatched_slots": [3]}, "weights", "other weights", 1),
        ({"rearrangements": 1}, "rearrangements", "0 rearrangements finished", NOT_TESTED),
    ],
)
def test_what_breaks_under_load_is_told_with_its_reason(
    behaviour: dict[str, Any], rule: str, said: str, expected: int, run: Any
) -> None:
    options = ["--hang-seconds", "1"] if "hang_after" in behaviour else []
    code, found, _ = run(*options, seconds_per_request=0.05, **behaviour)
    assert code == expected
    assert rule in rules_broken(found)
    (saw,) = [one["saw"] for one in found["rules"] if one["rule"] == rule]
    assert said in saw
    if rule == "answers":
        assert "The end of its log" in saw


def test_a_server_that_does_not_start_leaves_a_result(run: Any) -> None:
    code, found, output = run(die="no space left")
    assert (code, found["verdict"], found["arms"]) == (2, "could not run", [])
    assert "no space left" in found["reasons"][0]
    assert "stress: could not run" in output


def test_an_arm_without_eplb_owes_no_rearrangements(run: Any) -> None:
    code, found, output = run(arm="off", seconds_per_request=0.05)
    assert (code, rules_broken(found)) == (0, []), output
    samples = found["arms"][0]["memory"]["samples"]
    assert all(sample["rearrangements"] is None for sample in samples)
    assert "weights" not in {rule["rule"] for rule in found["rules"]}


def test_another_run_of_a_folder_in_use_is_refused(run: Any, tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "runs/stress", ""),
        pytest.raises(RunFolderError, match="runs/stress: wait for it, or give .* --name"),
    ):
        run()
    assert not (tmp_path / "runs/stress").exists()


@pytest.mark.usefixtures("default_signals")
def test_an_interrupted_run_is_kept_as_such(run: Any, tmp_path: Path) -> None:
    log, ended = tmp_path / "runs/stress/arms/async/server.log", threading.Event()

    def interrupt_once_started() -> None:
        while not log.exists() and not ended.wait(0.05):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    interrupt = threading.Thread(target=interrupt_once_started)
    interrupt.start()
    try:
        code, found, _ = run("--seconds", "60", seconds_per_request=0.05)
    finally:
        ended.set()
        interrupt.join()
    assert (code, found["verdict"], found["rules"]) == (2, "interrupted", [])


def test_a_load_that_is_made_up_needs_no_questions(harness: Harness, run: Any) -> None:
    harness.environment["GSM8K_DIR"] = "nowhere"
    code, found, output = run(seconds_per_request=0.05)
    assert (code, rules_broken(found)) == (0, []), output
