# SPDX-License-Identifier: Apache-2.0
"""The latency benchmark: what it serves, what it asks, what it makes of the answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from eval.errors import ServerError
from eval.latency import arm as arms
from eval.latency.__main__ import app
from eval.latency.command import ArmName, Setup, arm_command
from eval.latency.model import SHAPES, ModelShape, ShapeName, write_model
from eval.latency.plot import write_plot
from eval.latency.result import ArmLatency, Distribution, LatencyResult
from eval.latency.streams import stream_together
from eval.process_memory import sum_of_session
from eval.result import Machine, Versions

SETUP = Setup("/somewhere/vllm", Path("model"), ModelShape(), 0, False, 8, 100)


def test_a_model_has_the_layers_and_experts_that_were_asked_for(tmp_path: Path) -> None:
    write_model(ModelShape(moe_layers=5, experts=32, experts_per_token=3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_hidden_layers"] - config["first_k_dense_replace"] == 5
    assert (config["n_routed_experts"], config["num_experts_per_tok"]) == (32, 3)
    assert (tmp_path / "tokenizer.json").exists()


def test_deepseek_v2_lite_has_its_real_size(tmp_path: Path) -> None:
    write_model(SHAPES[ShapeName.deepseek_v2_lite], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    expert = 3 * config["hidden_size"] * config["moe_intermediate_size"]
    experts = (config["n_routed_experts"] + config["n_shared_experts"]) * expert
    # 15.7 billion parameters, of which attention and embeddings are the rest.
    assert experts * (config["num_hidden_layers"] - 1) == pytest.approx(14.8e9, rel=0.01)


def option(command: list[str], name: str) -> Any:
    return json.loads(command[command.index(name) + 1])


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_arms_differ_in_eplb_alone(gpus: int) -> None:
    setup = SETUP._replace(gpus=gpus, graphs=gpus == 2)
    commands = {name: arm_command(name, setup, 1234, Path("steps")) for name in ArmName}
    plugin = {
        name.value: option(command, "--additional-config")["eplb_plugin"]
        for name, command in commands.items()
    }
    assert all(("loopback" in settings) is (gpus < 2) for settings in plugin.values())
    assert {name: settings.get("enabled") for name, settings in plugin.items()} == {
        "off": None,
        "stock-sync": False,
        "sync": True,
        "stock-async": False,
        "async": True,
    }
    assert all(settings.get("step_times_dir") == "steps" for settings in list(plugin.values())[1:])
    assert "--enable-eplb" not in commands[ArmName.off]
    assert all(("--enforce-eager" in command) is (gpus < 2) for command in commands.values())
    assert all(("--kv-cache-memory-bytes" in one) is (gpus > 0) for one in commands.values())
    for stock, own in (("stock-sync", "sync"), ("stock-async", "async")):
        commands_of_mode = [list(commands[ArmName(name)]) for name in (stock, own)]
        assert option(commands_of_mode[0], "--eplb-config")["use_async"] is (own == "async")
        for command in commands_of_mode:
            command[command.index("--additional-config") + 1] = ""
        assert commands_of_mode[0] == commands_of_mode[1]


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [(0, "", None), (1, "", "0"), (2, "", "0,1"), (1, "3,2", "3"), (2, "5,6,7", "5,6")],
)
def test_servers_see_as_many_gpus_as_they_use(
    gpus: int, visible: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment = SETUP._replace(gpus=gpus).environment()
    assert environment.get("CUDA_VISIBLE_DEVICES") == expected


def test_gpu_memory_is_that_of_the_server_s_own_processes() -> None:
    listing = "11, 500\n12, 700\n12, 40\n99, 8000\n13, [N/A]\n"
    assert sum_of_session(listing, 1, {11: 1, 12: 1, 13: 1, 99: 2}.get) == 1240
    assert sum_of_session("99, 8000\n", 1, {99: 2}.get) is None
    assert sum_of_session("", 1, {}.get) is None


class Servers:
    """Stand-ins for servers, which note when they run and when they are measured."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def __call__(self, name: ArmName, *_: Any) -> Any:
        servers = self

        class Stand:
            def __enter__(self) -> None:
                servers.noted.append(f"+{name.value}")

            def __exit__(self, *_: Any) -> None:
                servers.noted.append(f"-{name.value}")

            def wait_until_healthy(self, *_: Any) -> float:
                return 1.0

        return SimpleNamespace(name=name, server=Stand())


def test_servers_are_started_together_and_measured_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Servers()
    monkeypatch.setattr(arms, "_ArmServer", servers)
    monkeypatch.setattr(arms, "_measure", lambda arm, _: servers.noted.append(arm.name.value))
    names = [ArmName.off, ArmName.sync, ArmName.async_]
    list(arms.measure_arms(names, SETUP, tmp_path, 2, Console(quiet=True)))
    together = ["+off", "+sync", "off", "sync", "-sync", "-off"]
    assert servers.noted == [*together, "+async", "async", "-async"]


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
    rows = [str(cell) for cell in seen.table().columns[0].cells]
    assert ("GPU memory, MiB" in rows) is not loopback
    assert ("loopback" in " ".join(seen.conclusions())) is loopback
    seen.write(tmp_path / "latency.json")
    assert LatencyResult.model_validate_json((tmp_path / "latency.json").read_text()) == seen
    write_plot(seen, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "gpus", "rule"),
    [
        (["--experts", "8", "--redundant", "3"], 0, "are 11 slots, which two ranks cannot share"),
        (["--graphs"], 0, "CUDA graphs cannot capture loopback's collectives"),
        (["--json", "nowhere/latency.json"], 0, "there is no folder nowhere"),
        (["--graphs"], 1, "CUDA graphs cannot capture loopback's collectives"),
        (["--graphs", "--gpus", "1"], 2, "CUDA graphs cannot capture loopback's collectives"),
        (["--gpus", "2"], 1, "--gpus 2: nvidia-smi lists 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    options: list[str], gpus: int, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.machine._accelerators", lambda: ["H100"] * gpus)
    done = CliRunner().invoke(app, [*options, "--folder", str(tmp_path)])
    assert rule in str(done.exception)
    assert not list(tmp_path.iterdir())
