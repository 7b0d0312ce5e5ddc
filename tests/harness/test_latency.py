# SPDX-License-Identifier: Apache-2.0
"""The latency benchmark: what it serves, what it asks, what it makes of the answers."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from eval.cli import app
from eval.commands import latency_arms as arms
from eval.commands.latency_arms import FIRST_TOKENS
from eval.commands.latency_model import ModelShape
from eval.commands.latency_setup import ArmName, Setup
from eval.errors import RunFolderError, ServerError
from eval.load.streams import stream_together
from eval.report.latency_plot import write_plot
from eval.results.latency import ArmLatency, Distribution, LatencyResult
from eval.results.lock import alone_in
from eval.results.schema import Machine, Versions
from eval.serving.server import Server

BENCHMARKS = sorted((Path(__file__).parents[2] / "docs/benchmarks").glob("itl*.json"))
SETUP = Setup("/somewhere/vllm", Path("model"), ModelShape(), (), False, 2, 100)


class Servers:
    """Stand-ins for servers, which note when they run and when they are asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.noted: list[str] = []
        self.steps: list[tuple[float, float, bool]] = []
        self.memory_of_processes: int | None = None

    def __call__(self, command: list[str], _: Any, log: Path, port: int) -> Any:
        servers, name = self, log.parent.name
        settings = json.loads(command[command.index("--additional-config") + 1])["eplb_plugin"]

        class Stand:
            url = name

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
                (folder / "steps0.jsonl").write_text("\n".join([*lines, '{"time": 9']))

        stand = Stand()
        if "step_times_dir" in settings:
            stand.write_steps()
        return stand

    def stream(
        self, url: str, _: str, streams: int, tokens: int, headers: dict[str, str]
    ) -> list[list[float]]:
        """A token each second; the first ones are not noted."""
        if tokens > FIRST_TOKENS:
            self.noted.append(url)
            with (self.folder / url / "server.log").open("a") as log:
                log.write("Rearranging experts (sync mode) ...\n" * 2)
        return [[float(second) for second in range(tokens)]] * streams


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    made_up = Servers(tmp_path)
    monkeypatch.setattr(arms, "Server", made_up)
    monkeypatch.setattr(arms, "stream_together", made_up.stream)
    return made_up


def measure(
    servers: Servers, *names: ArmName, at_once: int = 1, gpus: tuple[str, ...] = ()
) -> list[ArmLatency]:
    setup = SETUP._replace(gpus=gpus)
    return list(arms.measure_arms(names, setup, servers.folder, at_once, Console(quiet=True)))


def test_servers_are_started_together_and_measured_one_after_another(servers: Servers) -> None:
    names = (ArmName.off, ArmName.sync, ArmName.async_)
    measured = measure(servers, *names, at_once=2)
    assert [arm.name for arm in measured] == ["off", "sync", "async"]
    together = ["+off", "+sync", "off", "sync", "-sync", "-off"]
    assert servers.noted == [*together, "+async", "async", "-async"]


def test_one_at_a_time_is_stopped_before_the_next_starts(servers: Servers) -> None:
    measure(servers, ArmName.off, ArmName.async_)
    assert servers.noted == ["+off", "off", "-off", "+async", "async", "-async"]


def test_steps_that_rearrange_while_all_completions_are_streamed_are_the_stall(
    servers: Servers,
) -> None:
    # Counted from the token after the first ones, at second 32, to the last, at second 99.
    servers.steps = [(31, 9, True), (40, 0.001, False), (50, 0.3, True), (60, 0.5, True)]
    servers.steps += [(70, 0.001, False), (100, 9, True)]
    (arm,) = measure(servers, ArmName.sync)
    assert arm.state_manager is not None
    assert (arm.state_manager.count, arm.state_manager.p50, arm.state_manager.max) == (2, 400, 500)
    assert arm.rearranging_steps == 0.5
    assert arm.rearrangements == 2
    assert (arm.between_tokens.count, arm.between_tokens.p50) == (2 * 67, 1000)


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
    monkeypatch.setattr(arms, "gpu_memory_of_devices_mib", lambda: 1000 if servers.noted else 100)
    names = (ArmName.off, ArmName.async_)
    measured = measure(servers, *names, at_once=at_once, gpus=("0", "1"))
    assert [arm.gpu_memory_mib for arm in measured] == expected


class Completions(BaseHTTPRequestHandler):
    """Streams tokens, two of them together; ``short`` ends one too early."""

    short = False

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        tokens = json.loads(self.rfile.read(length))["max_tokens"] - self.short
        self.send_response(200)
        self.end_headers()
        chunks: list[dict[str, Any]] = [{"choices": [{"text": "a"}]} for _ in range(tokens - 1)]
        chunks.append({"choices": [], "usage": {"completion_tokens": tokens}})
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_every_stream_tells_when_its_tokens_came(url: str) -> None:
    arrived = stream_together(url, "model", streams=3, tokens=10)
    assert [len(times) for times in arrived] == [9] * 3
    assert all(times == sorted(times) for times in arrived)


def test_a_completion_that_ends_early_is_no_measurement(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Completions, "short", True)
    with pytest.raises(ServerError, match="has 9 of 10 tokens: the server ended it"):
        stream_together(url, "model", streams=1, tokens=10)


def distribution(factor: float) -> Distribution:
    found = Distribution.of([factor * number / 1000 for number in range(1, 101)])
    assert found is not None
    return found


def test_a_distribution_is_in_milliseconds() -> None:
    seen = distribution(1)
    assert (seen.count, seen.p50, seen.max) == (100, 50.5, 100)
    assert seen.curve[0] == (0, 1)
    assert seen.curve[-1] == (100, 100)
    assert Distribution.of([]) is None


def result(loopback: bool) -> LatencyResult:
    def arm(name: str, factor: float, steps: float | None) -> ArmLatency:
        return ArmLatency(
            name=name,
            start_seconds=1,
            rearrangements=3,
            rearranging_steps=1,
            state_manager=None if steps is None else distribution(steps),
            between_tokens=distribution(factor),
            slow=0.01,
            gpu_memory_mib=None if loopback else 700,
            command=[],
        )

    nothing = dict.fromkeys(Versions.model_fields)
    return LatencyResult(
        model=ModelShape(),
        streams=1,
        tokens=100,
        loopback=loopback,
        gpus=0 if loopback else 2,
        servers_at_once=1,
        machine=Machine(processor="p", accelerators=[], cores=1, memory_gib=1),
        versions=Versions(**{**nothing, "python": "3"}),
        arms=[
            arm("off", 1, None),
            arm("stock-sync", 2, 300),
            arm("sync", 2, 200),
            arm("stock-async", 3, 40),
            arm("async", 1.05, 2),
        ],
    )


@pytest.mark.parametrize("loopback", [True, False])
def test_arms_are_set_beside_each_other(loopback: bool, tmp_path: Path) -> None:
    seen = result(loopback)
    assert seen.conclusions()[:6] == [
        "stall of a sync rearrangement, p50: 10100.0 ms, vLLM's own 15150.0 ms",
        "time inside EplbState.step, async, p99: 20.0 times less than vLLM's own",
        "between tokens, p99, stock-sync against off: +100.0%",
        "between tokens, p99, sync against off: +100.0%",
        "between tokens, p99, stock-async against off: +200.0%",
        "between tokens, p99, async against off: +5.0%",
    ]
    assert "for how long it stalls the model" in seen.conclusions()[6]
    rows = [str(cell) for cell in seen.table().columns[0].cells]
    assert ("GPU memory, MiB" in rows) is not loopback
    assert ("loopback" in " ".join(seen.conclusions())) is loopback
    seen.write(tmp_path / "latency.json")
    assert LatencyResult.model_validate_json((tmp_path / "latency.json").read_text()) == seen
    write_plot(seen, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_without_its_counterpart_an_arm_is_not_compared() -> None:
    seen = result(loopback=False)
    alone = {name: [arm for arm in seen.arms if arm.name == name] for name in ("sync", "async")}
    sync, async_ = (seen.model_copy(update={"arms": arms}) for arms in alone.values())
    assert len(sync.conclusions()) == 1
    assert "for how long it stalls the model" in sync.conclusions()[0]
    assert async_.conclusions() == []


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_kept_results_can_be_read(file: Path) -> None:
    seen = LatencyResult.model_validate_json(file.read_text())
    assert {arm.name for arm in seen.arms} <= {name.value for name in ArmName}
    assert seen.loopback is (seen.gpus < 2)


def test_a_run_is_written_with_what_it_used(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.steps = [(50, 0.3, True)]
    monkeypatch.setattr("eval.results.machine._accelerators", lambda: ["H100"] * 8)
    monkeypatch.setattr("eval.commands.latency.find_executable", lambda _: "vllm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    options = ["--graphs", "--servers-at-once", "3", "--shape", "deepseek-v2-lite"]
    done = CliRunner().invoke(app, ["latency", *options, "--folder", str(tmp_path)])
    assert done.exception is None, done.exception
    seen = LatencyResult.model_validate_json((tmp_path / "latency.json").read_text())
    assert (seen.gpus, seen.servers_at_once, seen.loopback) == (2, 3, False)
    assert [arm.name for arm in seen.arms] == ["off", "stock-async", "async"]
    assert (seen.model.moe_layers, seen.model.redundant) == (26, 16)
    assert servers.noted[:4] == ["+off", "+stock-async", "+async", "off"]


def test_another_run_of_a_folder_in_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.commands.latency.measure_arms", lambda *_: pytest.fail("started"))
    with alone_in(tmp_path, ""):
        done = CliRunner().invoke(app, ["latency", "--gpus", "0", "--folder", str(tmp_path)])
    assert isinstance(done.exception, RunFolderError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "gpus", "rule"),
    [
        (["--experts", "8", "--redundant", "3"], 0, "are 11 slots, which two ranks cannot share"),
        (["--graphs"], 0, "CUDA graphs cannot capture loopback's collectives"),
        (["--json", "nowhere/latency.json"], 0, "there is no folder nowhere"),
        (["--graphs"], 1, "CUDA graphs cannot capture loopback's collectives"),
        (["--graphs", "--gpus", "1"], 2, "CUDA graphs cannot capture loopback's collectives"),
        (["--gpus", "2"], 1, "--gpus 2: nvidia-smi lists 1"),
        (["--shape", "deepseek-v2-lite", "--redundant", "3"], 0, "64 experts and 3 redundant"),
        (["--arm", "async", "--arm", "async"], 0, "--arm async, async: each has one folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    options: list[str], gpus: int, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.results.machine._accelerators", lambda: ["H100"] * gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("eval.commands.latency.measure_arms", lambda *_: pytest.fail("started"))
    done = CliRunner().invoke(app, ["latency", *options, "--folder", str(tmp_path)])
    assert rule in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_server_that_dies_while_it_is_measured_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*_: Any) -> list[list[float]]:
        raise ServerError("a streamed completion failed: reset")

    class Healthy(Server):
        def wait_until_healthy(self, *_: Any) -> float:
            self.wait()
            return 1.0

    monkeypatch.setattr(arms, "stream_together", stream)
    monkeypatch.setattr(arms, "Server", Healthy)
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\nraise ValueError('out of memory')\n")
    program.chmod(0o755)
    setup = SETUP._replace(executable=str(program))

    with pytest.raises(ServerError, match="off: the server stopped answering .*: ValueError: out"):
        list(arms.measure_arms([ArmName.off], setup, tmp_path, 1, Console(quiet=True)))
