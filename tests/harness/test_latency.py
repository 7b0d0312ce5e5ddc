# SPDX-License-Identifier: Apache-2.0
"""The latency benchmark: what it serves, what it asks, what it makes of the answers."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Done
from rich.console import Console
from typer.testing import CliRunner

from eval.cli import app
from eval.commands import latency_arms
from eval.commands.latency_run import measure
from eval.commands.latency_setup import ArmName, Checks, Setup, Switching
from eval.commands.latency_times import FIRST_TOKENS
from eval.errors import RunFolderError
from eval.judging.latency_rules import latency_rules
from eval.load.completions import CompletionError
from eval.load.streams import Stream
from eval.report.latency import latency_view
from eval.report.latency_plot import write_plot
from eval.results.folder import read_result
from eval.results.latency import Distribution, LatencyTimes, ModelShape
from eval.results.latency_of_schema_2 import LatencyResult
from eval.results.lock import alone_in
from eval.results.schema import Result
from eval.serving import served_arm as serving
from tests.builders.latency import distribution, latency_result

BENCHMARKS = sorted((Path(__file__).parents[2] / "docs/benchmarks").glob("itl*.json"))
MODELS = ModelShape()
SMALL = ModelShape(moe_layers=1, experts=4, redundant=2)


class Servers:
    """Stand-ins for servers, which note when they run and when they are asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.noted: list[str] = []
        self.steps: list[tuple[float, float, bool]] = []
        self.lines: list[str] = []
        self.memory_of_processes: int | None = None
        self.began = {"off": 0}
        self.missing = 0

    def __call__(self, command: list[str], _: Any, log: Path, port: int) -> Any:
        servers, name = self, log.parent.name
        settings = json.loads(command[command.index("--additional-config") + 1])["eplb_plugin"]

        class Stand:
            url = model_name = name

            def __init__(self) -> None:
                self.log = log
                self.headers: dict[str, str] = {}
                log.write_text("Rearranging experts (sync mode) (profile)...\n")

            def __enter__(self) -> None:
                servers.noted.append(f"+{name}")

            def __exit__(self, *_: Any) -> None:
                servers.noted.append(f"-{name}")

            def wait_until_healthy(self, *_: Any) -> float:
                return 1.0

            def gpu_memory_mib(self) -> int | None:
                return servers.memory_of_processes

            def write_steps(self) -> None:
                folder = Path(settings["step_times_dir"])
                folder.mkdir()
                lines = [
                    json.dumps({"time": time, "seconds": seconds, "rearranging": rearranging})
                    for time, seconds, rearranging in servers.steps
                ]
                lines = [*lines, *servers.lines, '{"time": 9']
                (folder / "steps0.jsonl").write_text("\n".join(lines))

        stand = Stand()
        if "step_times_dir" in settings:
            stand.write_steps()
        return stand

    def stream(
        self, url: str, _: str, streams: int, tokens: int, headers: dict[str, str]
    ) -> list[Stream]:
        """A token each second; the first ones are not noted."""
        if tokens > FIRST_TOKENS:
            self.noted.append(url)
            with (self.folder / "latency/arms" / url / "server.log").open("a") as log:
                log.write("Rearranging experts (sync mode) ...\n" * self.began.get(url, 2))
        seconds = [float(second) for second in range(tokens)]
        generated = tokens - self.missing
        return [Stream("", seconds[:generated], generated, 0.0, tokens)] * streams


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    made_up = Servers(tmp_path)
    monkeypatch.setattr(serving, "Server", made_up)
    monkeypatch.setattr(latency_arms, "stream_together", made_up.stream)
    return made_up


def run(
    folder: Path,
    *names: ArmName,
    at_once: int = 1,
    gpus: tuple[str, ...] = (),
    most_p99: float | None = None,
    executable: str = "vllm",
) -> Result:
    setup = Setup(
        executable, folder / "latency/model", MODELS, gpus, False, 2, 100, servers_at_once=at_once
    )
    quiet = Console(quiet=True)
    return measure(setup, names, most_p99, folder, "latency", quiet)[0]


def measured(result: Result) -> list[LatencyTimes]:
    return [arm.latency for arm in result.arms if arm.latency is not None]


def test_servers_are_started_together_and_measured_one_after_another(servers: Servers) -> None:
    names = (ArmName.off, ArmName.sync, ArmName.async_)
    found = run(servers.folder, *names, at_once=2)
    assert [arm.name for arm in found.arms] == ["off", "sync", "async"]
    together = ["+off", "+sync", "off", "sync", "-sync", "-off"]
    assert servers.noted == [*together, "+async", "async", "-async"]


def test_one_at_a_time_is_stopped_before_the_next_starts(servers: Servers) -> None:
    run(servers.folder, ArmName.off, ArmName.async_)
    assert servers.noted == ["+off", "off", "-off", "+async", "async", "-async"]


def test_steps_that_rearrange_while_all_completions_are_streamed_are_the_stall(
    servers: Servers,
) -> None:
    # Counted from the token after the first ones, at second 32, to the last, at second 99.
    servers.steps = [(31, 9, True), (40, 0.001, False), (50, 0.3, True), (60, 0.5, True)]
    servers.steps += [(70, 0.001, False), (100, 9, True)]
    found = run(servers.folder, ArmName.sync)
    (times,) = measured(found)
    assert times.state_manager is not None and times.between_tokens is not None
    seen = times.state_manager
    assert (seen.count, seen.p50, seen.max) == (2, 400, 500)
    assert times.rearranging_steps == 0.5
    assert found.arms[0].logged_rearrangements == 2
    assert (times.between_tokens.count, times.between_tokens.p50) == (2 * 67, 1000)


def test_a_line_that_is_no_step_time_is_told_of_by_its_number(servers: Servers) -> None:
    servers.lines = ['{"time": "soon", "seconds": 1, "rearranging": true}']
    found = run(servers.folder, ArmName.sync)
    assert found.verdict == "could not run"
    assert "steps0.jsonl, line 1 is no step time" in found.reasons[0]


@pytest.mark.parametrize(
    ("of_processes", "at_once", "expected"),
    [(700, 1, [700, 700]), (700, 2, [700, 700]), (None, 1, [900, 900]), (None, 2, [None, None])],
)
def test_memory_is_that_of_processes_or_of_the_only_server(
    of_processes: int | None,
    at_once: int,
    expected: list[int | None],
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers.memory_of_processes = of_processes
    monkeypatch.setattr(
        latency_arms, "gpu_memory_of_devices_mib", lambda: 1000 if servers.noted else 100
    )
    names = (ArmName.off, ArmName.async_)
    found = measured(run(servers.folder, *names, at_once=at_once, gpus=("0", "1")))
    assert [times.gpu_memory_mib for times in found] == expected


def test_arms_that_switch_are_checked_after_all_that_are_timed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def in_turns(url: str, _: str, prompts: Any, completions: int, *rest: Any) -> list[Stream]:
        streams, tokens, most_seconds, headers = rest
        asked.append((url, completions, streams, tokens, most_seconds))
        return servers.stream(url, "", completions, tokens, headers)

    monkeypatch.setattr(latency_arms, "stream_in_turns", in_turns)
    monkeypatch.setattr(latency_arms, "DELIVERY_SECONDS", 0)
    servers.steps = [(50, 0.3, True)]
    setup = Setup(
        *("vllm", servers.folder / "latency/model", SMALL, (), False, 2, 100),
        switching=Switching(completions=6, turn=2, most_seconds=9.0),
        checks=Checks.again,
        servers_at_once=5,
    )
    names = (ArmName.off, ArmName.stock_sync, ArmName.sync)
    quiet = Console(quiet=True)
    found, folder = measure(setup, names, None, servers.folder, "latency", quiet)
    order = ["off", "stock-sync", "sync", "sync-checked"]
    assert [arm.name for arm in found.arms] == order
    assert [one for one in servers.noted if one[0] not in "+-"] == order
    assert servers.noted[:4] == [f"+{name}" for name in order], "all start together"
    assert asked[:2] == [("off", 2, 2, FIRST_TOKENS, 9.0), ("off", 6, 2, 100, 9.0)]
    assert (folder / "model/model.safetensors").exists()
    assert verdicts(found)["sync-checked", "weights"] == "not tested"


def verdicts(result: Result) -> dict[tuple[str, str], str]:
    return {(rule.arm or "", rule.rule): rule.verdict for rule in result.rules}


def test_a_run_in_which_experts_moved_where_they_should_passes(servers: Servers) -> None:
    servers.steps = [(50, 0.3, True)]
    found = run(servers.folder, ArmName.off, ArmName.async_)
    assert found.verdict == "passed"
    assert verdicts(found) == {
        ("off", "answers"): "passed",
        ("off", "no_rearrangements"): "passed",
        ("async", "answers"): "passed",
        ("async", "rearrangements"): "passed",
        ("async", "step_times"): "passed",
    }


@pytest.mark.parametrize(
    ("began", "missing", "steps", "rule", "verdict"),
    [
        ({"off": 1}, 0, [(50, 0.3, True)], ("off", "no_rearrangements"), "failed"),
        ({"off": 0, "async": 0}, 0, [(50, 1, True)], ("async", "rearrangements"), "not tested"),
        ({"off": 0}, 1, [(50, 0.3, True)], ("async", "answers"), "failed"),
        # Not even as many as are left out.
        ({"off": 0}, 80, [(50, 0.3, True)], ("async", "answers"), "failed"),
        ({"off": 0}, 0, [(50, 0.3, False), (9, 9, True)], ("async", "step_times"), "not tested"),
    ],
)
def test_each_rule_has_its_own_verdict(
    began: dict[str, int],
    missing: int,
    steps: list[tuple[float, float, bool]],
    rule: tuple[str, str],
    verdict: str,
    servers: Servers,
) -> None:
    servers.began, servers.missing, servers.steps = began, missing, steps
    found = run(servers.folder, ArmName.off, ArmName.async_)
    assert verdicts(found)[rule] == verdict
    assert found.verdict == verdict


def test_a_distribution_is_in_milliseconds() -> None:
    seen = distribution(1)
    assert (seen.count, seen.p50, seen.max) == (100, 50.5, 100)
    assert seen.curve[0] == (0, 1)
    assert seen.curve[-1] == (100, 100)
    assert Distribution.of([]) is None


@pytest.mark.parametrize("loopback", [True, False])
def test_arms_are_set_beside_each_other(loopback: bool, tmp_path: Path) -> None:
    seen = latency_result(loopback=loopback)
    view = latency_view(seen)
    conclusions = list(view.conclusions())
    assert conclusions[:6] == [
        "stall of a sync rearrangement, p50: 10100.0 ms, vLLM's own 15150.0 ms",
        "time inside EplbState.step, async, p99: 20.0 times less than vLLM's own",
        "between tokens, p99, stock-sync against off: +100.0%",
        "between tokens, p99, sync against off: +100.0%",
        "between tokens, p99, stock-async against off: +200.0%",
        "between tokens, p99, async against off: +5.0%",
    ]
    assert "for how long it stalls the model" in conclusions[6]
    assert ("GPU memory, MiB" in [row.heading for row in view.rows()]) is not loopback
    assert ("loopback" in " ".join(conclusions)) is loopback
    write_plot(seen, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_without_its_counterpart_an_arm_is_not_compared() -> None:
    sync, async_ = (
        list(latency_view(latency_result(name, loopback=False)).conclusions())
        for name in ("sync", "async")
    )
    assert len(sync) == 1
    assert "for how long it stalls the model" in sync[0]
    assert async_ == []


@pytest.mark.parametrize(
    ("most_p99", "times", "verdict"),
    [(1.1, 1.05, "passed"), (1.05, 1.05, "passed"), (1.04, 1.05, "failed"), (None, 9, None)],
)
def test_times_are_judged_only_against_a_limit_that_was_given(
    most_p99: float | None, times: float, verdict: str | None
) -> None:
    seen = latency_result("off", "async", most_p99=most_p99, times=times)
    assert seen.latency is not None
    found = {
        rule.rule: rule.verdict for rule in latency_rules(seen.config, seen.latency, seen.arms)
    }
    assert found.get("p99_between_tokens") == verdict


def test_a_percentile_of_few_times_is_no_evidence() -> None:
    seen = latency_result("off", "async", most_p99=2, count=99)
    assert seen.latency is not None
    rules = {rule.rule: rule for rule in latency_rules(seen.config, seen.latency, seen.arms)}
    assert rules["p99_between_tokens"].verdict == "not tested"
    assert "fewer than 100 times" in rules["p99_between_tokens"].saw


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_kept_results_can_be_read(file: Path) -> None:
    text = file.read_text()
    if "schema_version" in json.loads(text):
        seen = LatencyResult.model_validate_json(text)
        gpus, loopback = seen.gpus, seen.loopback
    else:
        asked = Result.model_validate_json(text).latency
        assert asked is not None
        gpus, loopback = asked.gpus, asked.loopback
    assert loopback is (gpus < 2)


def test_only_an_evaluation_is_judged_again_and_reported_beside_others(
    servers: Servers, tmp_path: Path
) -> None:
    run(servers.folder, ArmName.off)
    kept = str(tmp_path / "latency")
    assert "is a latency run" in str(CliRunner().invoke(app, ["gate", kept]).exception)
    html = ["--html", str(tmp_path / "report.html")]
    beside = CliRunner().invoke(app, ["report", kept, kept, *html])
    assert "has a report of its own" in str(beside.exception)
    assert CliRunner().invoke(app, ["report", kept, *html]).exit_code == 0
    assert "latency: passed" in CliRunner().invoke(app, ["report", kept]).output


def command(folder: Path, *options: str) -> Done:
    return CliRunner().invoke(app, ["latency", *options, "--folder", str(folder / "latency")])


@pytest.fixture
def eight_gpus(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers.steps = [(50, 0.3, True)]
    monkeypatch.setattr("eval.results.machine.gpu_names", lambda: ["H100"] * 8)
    monkeypatch.setattr("eval.commands.latency.find_executable", lambda _: "vllm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    return servers


def test_a_run_is_written_with_what_it_used(eight_gpus: Servers, tmp_path: Path) -> None:
    options = ["--graphs", "--servers-at-once", "3", "--shape", "deepseek-v2-lite"]
    files = ["--json", str(tmp_path / "copy.json"), "--plot", str(tmp_path / "plot.png")]
    done = command(tmp_path, *options, *files)
    assert done.exit_code == 0, done.output
    seen = read_result(tmp_path / "latency")
    assert (seen.kind, seen.verdict, seen.name) == ("latency", "passed", "latency")
    asked = seen.latency
    assert asked is not None
    assert (asked.gpus, asked.servers_at_once, asked.loopback) == (2, 3, False)
    assert [arm.name for arm in seen.arms] == ["off", "stock-async", "async"]
    assert (asked.shape.moe_layers, asked.shape.redundant) == (26, 16)
    assert eight_gpus.noted[:4] == ["+off", "+stock-async", "+async", "off"]
    assert seen.config_sha256 == seen.config.sha256()
    assert json.loads((tmp_path / "copy.json").read_text())["kind"] == "latency"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "EplbState.step, p50" in done.output and "latency: passed" in done.output
    page = (tmp_path / "latency/report.html").read_text()
    assert "EPLB latency run latency" in page and "<svg" in page and "stock-async" in page
    text = (tmp_path / "latency/report.md").read_text()
    assert "| between tokens, p99 |" in text and "python -m eval latency --arm off" in text


def test_what_an_earlier_run_left_is_moved_aside(eight_gpus: Servers, tmp_path: Path) -> None:
    for _ in range(2):
        assert command(tmp_path, "--arm", "off").exit_code == 0
    assert len([one for one in tmp_path.glob("latency*") if one.is_dir()]) == 2


def test_another_run_of_a_folder_in_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.commands.latency_run.measure_arms", lambda *_: pytest.fail("started"))
    with alone_in(tmp_path / "latency", ""):
        done = command(tmp_path, "--gpus", "0")
    assert isinstance(done.exception, RunFolderError)
    assert not (tmp_path / "latency").exists()


@pytest.mark.parametrize(
    ("options", "gpus", "rule"),
    [
        (["--experts", "8", "--redundant", "3"], 0, "are 11 slots, which 2 ranks cannot share"),
        (["--graphs"], 0, "CUDA graphs cannot capture loopback's collectives"),
        (["--json", "nowhere/latency.json"], 0, "there is no folder nowhere"),
        (["--json", "."], 0, "it is a folder"),
        (["--plot", "plot.bmp"], 0, "its name has to end with one of"),
        (["--graphs"], 1, "CUDA graphs cannot capture loopback's collectives"),
        (["--graphs", "--gpus", "1"], 2, "CUDA graphs cannot capture loopback's collectives"),
        (["--gpus", "2"], 1, "--gpus 2: nvidia-smi lists 1"),
        (["--shape", "deepseek-v2-lite", "--redundant", "3"], 0, "64 experts and 3 redundant"),
        (["--arm", "async", "--arm", "async"], 0, "--arm async, async: each has one folder"),
        (["--arm", "async", "--most-p99", "1.2"], 0, "--most-p99 1.2 compares with arm off"),
        (["--most-p99", "inf"], 0, "--most-p99 inf: give a number that is finite"),
        (["--name", "other"], 0, "--name other is runs/other, --folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    options: list[str], gpus: int, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.results.machine.gpu_names", lambda: ["H100"] * gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("eval.commands.latency_run.measure_arms", lambda *_: pytest.fail("started"))
    done = command(tmp_path, *options)
    assert rule in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "rule"), [("../up", "a run is named by"), ("", "a run is named by")]
)
def test_a_name_that_is_no_folder_s_is_refused(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.commands.latency.measure", lambda *_: pytest.fail("started"))
    done = CliRunner().invoke(app, ["latency", "--gpus", "0", "--name", name])
    assert rule in str(done.exception)


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.commands.latency.measure", lambda *_: pytest.fail("started"))
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency/thesis.tex").touch()
    done = command(tmp_path, "--gpus", "0")
    assert "is there and is not that of a run" in str(done.exception)
    assert (tmp_path / "latency/thesis.tex").exists()


@pytest.fixture
def a_server_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Found healthy, as one that dies while it is measured is."""

    def stream(*_: Any) -> list[Stream]:
        raise CompletionError("a request failed: reset")

    class Healthy(serving.Server):
        def wait_until_healthy(self, *_: Any) -> float:
            self.wait()
            return 1.0

    monkeypatch.setattr(latency_arms, "stream_together", stream)
    monkeypatch.setattr(serving, "Server", Healthy)
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\nraise ValueError('out of memory')\n")
    program.chmod(0o755)
    return str(program)


def test_a_server_that_dies_while_it_is_measured_says_why_and_the_run_is_kept(
    tmp_path: Path, a_server_that_ends: str
) -> None:
    found = run(tmp_path, ArmName.off, executable=a_server_that_ends)
    assert found.verdict == "could not run"
    assert "arm off: the server stopped answering" in found.reasons[0]
    assert "ValueError: out of memory" in found.reasons[0]
    assert read_result(tmp_path / "latency") == found


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("interrupted", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_the_arms_that_were_measured(
    interrupted: int, eight_gpus: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(url: str, *rest: Any) -> list[Stream]:
        if url == "async":
            os.kill(os.getpid(), interrupted)
        return eight_gpus.stream(url, *rest)

    monkeypatch.setattr(latency_arms, "stream_together", stream)
    done = command(tmp_path, "--arm", "off", "--arm", "async")
    assert done.exit_code == 2
    kept = read_result(tmp_path / "latency")
    assert (kept.verdict, [arm.name for arm in kept.arms]) == ("interrupted", ["off"])
    assert "interrupted during arm async" in done.output
