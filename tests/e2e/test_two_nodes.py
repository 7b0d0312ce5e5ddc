# SPDX-License-Identifier: Apache-2.0
"""Two nodes: an EP rank in each of two network namespaces, the second one headless.

What they share besides the network, which real nodes would not, is this machine's kernel and files.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from eval.config.loading import load_config
from eval.serving.command import find_executable
from eval.serving.process import ChildProcess
from tests.e2e.conftest import MODEL, ROOT, TASK

CPU = ROOT / "eval/config/presets/cpu.yaml"
EPLB = {"window_size": 10, "step_interval": 10, "num_redundant_experts": 4, "use_async": True}
PORT = 8000
"""Of the HTTP server, in a namespace that has no other."""


class Node(NamedTuple):
    """A network namespace with one end of a cable."""

    namespace: str
    device: str
    address: str

    def inside(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Two, which reach each other and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("no ip on PATH: Debian's package iproute2 has it")
    names = [f"eplb-{os.getpid()}-{end}" for end in "ab"]
    made = [
        Node(name, f"veth-{name[-1]}", f"10.77.0.{number}") for number, name in enumerate(names, 1)
    ]
    with ExitStack() as ending:
        try:
            for node in made:
                ip("netns", "add", node.namespace)
                ending.callback(ip, "netns", "del", node.namespace)
            (a, b) = made
            ends = ["netns", a.namespace, "type", "veth", "peer", "name", b.device]
            ip("link", "add", a.device, *ends, "netns", b.namespace)
            for node in made:
                ip("-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", node.device)
                ip("-n", node.namespace, "link", "set", node.device, "up")
                ip("-n", node.namespace, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces can be made here: {error.stderr.decode().strip()}")
        yield made


def server(
    node: Node, first: Node, folder: Path, options: Sequence[str], **settings: Any
) -> ChildProcess:
    """One node's, as somebody starts it there: the harness has no part in it."""
    config = load_config(CPU)
    plugin = {"loopback": True, "check_weights": True, "events_dir": str(folder / "events")}
    command = [find_executable(None), "serve", str(MODEL), "--data-parallel-size", "2"]
    command += ["--data-parallel-size-local", "1", "--data-parallel-address", first.address]
    command += ["--data-parallel-rpc-port", "13345", "--enable-expert-parallel", "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "16"]
    command += ["--additional-config", json.dumps({"eplb_plugin": {**plugin, **settings}})]
    command += ["--enable-eplb", "--eplb-config", json.dumps(EPLB), *options]
    environment = {
        **config.serve.environment,
        "GLOO_SOCKET_IFNAME": node.device,
        "VLLM_HOST_IP": node.address,
    }
    return ChildProcess(node.inside(*command), environment, folder / f"{node.device}.log")


def served(nodes: list[Node], folder: Path, **settings: Any) -> list[ChildProcess]:
    """Both, of which the second has other settings."""
    a, b = nodes
    http = ["--host", "127.0.0.1", "--port", str(PORT), "--api-server-count", "1"]
    second = ["--headless", "--data-parallel-start-rank", "1"]
    return [server(a, a, folder, http), server(b, a, folder, second, **settings)]


def test_ranks_of_two_nodes_are_judged_by_one_verdict(nodes: list[Node], tmp_path: Path) -> None:
    cpu = yaml.safe_load(CPU.read_text())
    url = f"http://127.0.0.1:{PORT}"
    arm = {"name": "async", "eplb": EPLB, "url": url, "events": str(tmp_path / "events")}
    config = {
        **{name: cpu[name] for name in ("serve", "plugin")},
        "name": "two-nodes",
        "model": str(MODEL),
        "tasks": [TASK],
        "arms": [{"name": "off"}, arm],
        "gate": {"identical": True, "margin_points": 7, "rearrangements": 8, "moe_layers": 4},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with ExitStack() as running:
        started = [running.enter_context(one) for one in served(nodes, tmp_path)]
        # What answers on the first node's loopback can be asked from nowhere else.
        ask = f"import urllib.request; urllib.request.urlopen('{url}/health', timeout=5)"
        healthy = nodes[0].inside(sys.executable, "-c", ask)
        deadline = time.monotonic() + 300
        while subprocess.run(healthy, stderr=subprocess.DEVNULL).returncode != 0:
            assert time.monotonic() < deadline and all(one.running() for one in started)
            time.sleep(0.5)
        done = subprocess.run(
            nodes[0].inside(sys.executable, "-m", "eval", "run", "config.yaml"),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "runs/two-nodes/result.json").read_text())
    [_, judged] = result["arms"]
    assert judged["rearrangements"] >= 8 and judged["weight_mismatches"] == 0
    [task] = judged["tasks"]
    assert task["identical_to_off"] == task["questions"] == TASK["questions"]
    ranks = sorted(file.name for file in (tmp_path / "events").glob("rank*.jsonl"))
    assert ranks == ["rank0.jsonl", "rank1.jsonl"]


def test_nodes_that_were_started_differently_are_refused_by_name(
    nodes: list[Node], tmp_path: Path
) -> None:
    with ExitStack() as running:
        different = {"planning": {"policy": "incremental"}}
        started = [running.enter_context(one) for one in served(nodes, tmp_path, **different)]
        assert started[0].wait() != 0
        started[1].wait()  # with 0, as vLLM's headless servers end whatever happened
    for node in nodes:
        said = (tmp_path / f"{node.device}.log").read_text()
        assert "the 2 EP ranks do not agree. planning: null on rank 0" in said
        assert "Start every node with the same --additional-config" in said
