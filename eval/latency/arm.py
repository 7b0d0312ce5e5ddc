# SPDX-License-Identifier: Apache-2.0
"""One server, started, asked and measured."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from eval.command import HOST
from eval.latency.model import ModelShape
from eval.latency.result import ArmLatency, Distribution
from eval.latency.streams import stream_together
from eval.server import Server, choose_port

FIRST_TOKENS = 32
"""Of each completion, which are not counted: prompts are read meanwhile."""
_REARRANGEMENT = re.compile(r"Rearranging experts", re.MULTILINE)
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_HOST_IP": HOST,
}


class Setup(NamedTuple):
    """What all arms have in common."""

    executable: str
    model: Path
    shape: ModelShape
    gpus: int
    graphs: bool
    streams: int
    tokens: int

    @property
    def loopback(self) -> bool:
        """Fewer GPUs than ranks."""
        return self.gpus < 2


def measure_arm(name: str, setup: Setup, folder: Path, console: Console) -> ArmLatency:
    """Serve one arm and stream completions from it.

    Args:
        name: ``off``, ``stock`` (vLLM's own EPLB, async) or ``plugin``.
        setup: What is served and asked.
        folder: An empty one, for its log and its step times.
        console: For what goes on.

    Raises:
        EvaluationError: The server did not start or stopped answering.
    """
    port = choose_port(None)
    steps = (folder / "steps").absolute()
    command = _command(name, setup, port, steps)
    environment = {**_ENVIRONMENT, **({} if setup.gpus else _CPU_ENVIRONMENT)}
    with Server(command, environment, folder / "server.log", port) as server:
        ready = server.wait_until_healthy(1200, console, name)
        console.print(f"{name}: server ready after {ready:.1f} s, streaming")
        model = str(setup.model)
        stream_together(server.url, model, setup.streams, FIRST_TOKENS)
        log_before = server.log.read_text(errors="replace")
        arrived = stream_together(server.url, model, setup.streams, setup.tokens)
        log = server.log.read_text(errors="replace")[len(log_before) :]
    counted = [times[FIRST_TOKENS:] for times in arrived]
    between = [after - before for times in counted for before, after in pairwise(times)]
    start, end = max(times[0] for times in counted), min(times[-1] for times in counted)
    inside = [step for step in _steps(steps) if start <= step["time"] <= end]
    rearranging = [step["seconds"] for step in inside if step["rearranging"]]
    tokens = Distribution.of(between)
    assert tokens is not None
    return ArmLatency(
        name=name,
        start_seconds=round(ready, 1),
        rearrangements=len(_REARRANGEMENT.findall(log)),
        rearranging_steps=round(len(rearranging) / len(inside), 4) if inside else 0.0,
        state_manager=Distribution.of(rearranging),
        between_tokens=tokens,
        slow=round(float((np.array(between) > 2 * np.median(between)).mean()), 6),
        # As anyone would type it: without this machine's paths.
        command=["vllm", *_command(name, setup, port, Path("steps"))[1:]],
    )


def _command(name: str, setup: Setup, port: int, steps: Path) -> list[str]:
    options: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "load-format": "dummy",
        "dtype": "bfloat16" if setup.gpus else "float32",
        "max-model-len": 4096,
        "max-num-seqs": setup.streams,
        "data-parallel-size": 2,
        "api-server-count": 1,
    }
    if setup.gpus:
        options |= {"gpu-memory-utilization": 0.4}
    if setup.graphs:
        # Graphs of decoding without torch.compile, whose minutes this benchmark does not need.
        sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= setup.streams]
        graphs = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}
        options |= {"compilation-config": json.dumps(graphs)}
    plugin: dict[str, Any] = {"loopback": True} if setup.loopback else {}
    flags = ["--enable-expert-parallel", *([] if setup.graphs else ["--enforce-eager"])]
    if name != "off":
        plugin |= {"step_times_dir": str(steps), "enabled": name == "plugin"}
        # Shorter than a rearrangement takes: the next begins as soon as one has ended.
        eplb = {"window_size": 16, "step_interval": 16, "use_async": True}
        eplb |= {"num_redundant_experts": setup.shape.redundant}
        flags += ["--enable-eplb", "--eplb-config", json.dumps(eplb)]
    options |= {"additional-config": json.dumps({"eplb_plugin": plugin})}
    pairs = chain.from_iterable((f"--{option}", str(value)) for option, value in options.items())
    return [setup.executable, "serve", str(setup.model), *pairs, *flags]


def _steps(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("steps*.jsonl")):
        lines: Sequence[str] = file.read_text(encoding="utf-8").split("\n")
        yield from (json.loads(line) for line in lines[:-1])
