# SPDX-License-Identifier: Apache-2.0
"""The latency benchmark: what it serves, what it asks, what it makes of the answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eval.errors import ServerError
from eval.latency import arm as arms
from eval.latency.__main__ import app
from eval.latency.arm import Setup
from eval.latency.model import ModelShape, write_model
from eval.latency.plot import write_plot
from eval.latency.result import ArmLatency, Distribution, LatencyResult
from eval.latency.streams import stream_together
from eval.result import Machine, Versions

SETUP = Setup("/somewhere/vllm", Path("model"), ModelShape(), 0, False, 8, 100)


def test_a_model_has_the_layers_and_experts_that_were_asked_for(tmp_path: Path) -> None:
    write_model(ModelShape(moe_layers=5, experts=32, experts_per_token=3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_hidden_layers"] - config["first_k_dense_replace"] == 5
    assert (config["n_routed_experts"], config["num_experts_per_tok"]) == (32, 3)
    assert (tmp_path / "tokenizer.json").exists()


@pytest.mark.parametrize("gpus", [0, 2])
def test_arms_differ_in_eplb_alone(gpus: int) -> None:
    setup = SETUP._replace(gpus=gpus, graphs=gpus > 0)
    commands = {
        name: arms._command(name, setup, 1234, Path("steps")) for name in ("off", "stock", "plugin")
    }
    plugin = {
        name: json.loads(command[command.index("--additional-config") + 1])["eplb_plugin"]
        for name, command in commands.items()
    }
    assert all(("loopback" in settings) is (gpus == 0) for settings in plugin.values())
    assert plugin["stock"]["enabled"] is False
    assert plugin["plugin"]["enabled"] is True
    assert plugin["stock"]["step_times_dir"] == plugin["plugin"]["step_times_dir"] == "steps"
    assert "--enable-eplb" not in commands["off"]
    assert all(("--enforce-eager" in command) is (gpus == 0) for command in commands.values())
    for command in commands.values():
        place = command.index("--additional-config") + 1
        command[place] = ""
    assert commands["stock"] == commands["plugin"]


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
            command=[],
        )

    nothing = dict.fromkeys(Versions.model_fields)
    return LatencyResult(
        model=ModelShape(),
        streams=1,
        tokens=100,
        loopback=loopback,
        machine=Machine(processor="p", accelerators=[], cores=1, memory_gib=1),
        versions=Versions(**{**nothing, "python": "3"}),
        arms=[arm("off", 1, None), arm("stock", 3, 40), arm("plugin", 1.05, 2)],
    )


@pytest.mark.parametrize("loopback", [True, False])
def test_arms_are_set_beside_each_other(loopback: bool, tmp_path: Path) -> None:
    seen = result(loopback)
    assert seen.conclusions()[:3] == [
        "time inside EplbState.step, p99: 20.0 times less than vLLM's own",
        "between tokens, p99, stock against off: +200.0%",
        "between tokens, p99, plugin against off: +5.0%",
    ]
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
        ([], 1, "there is one GPU, and EPLB needs two ranks"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    options: list[str], gpus: int, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.machine._accelerators", lambda: ["H100"] * gpus)
    done = CliRunner().invoke(app, [*options, "--folder", str(tmp_path)])
    assert rule in str(done.exception)
    assert not list(tmp_path.iterdir())
