# SPDX-License-Identifier: Apache-2.0
"""What the latency benchmark serves, as a configuration."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from eval.commands.latency_gpus import RANKS
from eval.config.schema import Arm, Config, Eplb
from eval.config.serve_section import Serve
from eval.results.latency import ModelShape
from eval.serving.command import HOST

_STEP_INTERVAL = {
    # Shorter than a rearrangement takes: the next begins as soon as one has ended.
    "async": 16,
    # Every token waits for a whole rearrangement: most steps have to be without one.
    "sync": 64,
}
_KV_CACHE_BYTES = 2 * 2**30
"""Of each rank, at least: 31,000 tokens of the wide shape, and a rank has half of the streams."""
_KV_CACHE_BYTES_A_STREAM = _KV_CACHE_BYTES // 8
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


class ArmName(str, Enum):
    """Which servers there are, named as those of an evaluation."""

    off = "off"
    stock_sync = "stock-sync"
    sync = "sync"
    stock_async = "stock-async"
    async_ = "async"

    @property
    def stock(self) -> bool:
        """Whether its EPLB is vLLM's own."""
        return self.value.startswith("stock-")

    @property
    def mode(self) -> str:
        """Of its EPLB."""
        return self.value.removeprefix("stock-")


class Setup(NamedTuple):
    """What all arms have in common."""

    executable: str
    """The ``vllm`` that serves."""
    model: Path
    shape: ModelShape
    gpus: tuple[str, ...]
    """Entries of ``CUDA_VISIBLE_DEVICES``."""
    graphs: bool
    streams: int
    tokens: int

    @property
    def loopback(self) -> bool:
        """Fewer GPUs than ranks."""
        return len(self.gpus) < RANKS

    def environment(self) -> dict[str, str]:
        """Of every server."""
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        return {**_ENVIRONMENT, **visible, **({} if self.gpus else _CPU_ENVIRONMENT)}


def latency_config(name: str, setup: Setup, arms: Sequence[ArmName], arms_folder: Path) -> Config:
    """What is served, as a configuration like any other; its tasks are none.

    Args:
        name: Of the run.
        setup: What all arms have in common.
        arms: Those to measure. The baseline is told of even where it is not among them.
        arms_folder: Has a folder for each, into whose ``steps`` its step times are written.
    """
    known = dict.fromkeys([ArmName.off, *arms])
    return Config(
        name=name,
        model=str(setup.model),
        tasks=[],
        serve=Serve(
            executable=setup.executable,
            start_timeout=1200,
            options=_options(setup),
            environment=setup.environment(),
        ),
        plugin={"loopback": True} if setup.loopback else {},
        arms=[_arm(one, setup, arms_folder / one.value / "steps") for one in known],
    )


def _options(setup: Setup) -> dict[str, JsonValue]:
    options: dict[str, JsonValue] = {
        "load-format": "dummy",
        "dtype": "bfloat16" if setup.gpus else "float32",
        "max-model-len": 4096,
        "max-num-seqs": setup.streams,
        "data-parallel-size": RANKS,
        "api-server-count": 1,
        "enable-expert-parallel": True,
    }
    if setup.gpus:
        # A cache of one size in every arm: what else differs in memory is EPLB's.
        cache = max(_KV_CACHE_BYTES, setup.streams * _KV_CACHE_BYTES_A_STREAM)
        # Of the share vLLM then only checks that it is free when a server starts.
        options |= {"kv-cache-memory-bytes": cache, "gpu-memory-utilization": 0.1}
    if not setup.graphs:
        return {**options, "enforce-eager": True}
    # Graphs of decoding without torch.compile, whose minutes this benchmark does not need.
    sizes: list[JsonValue] = [size for size in (1, 2, 4, 8, 16, 32) if size <= setup.streams]
    graphs: dict[str, JsonValue] = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    return {**options, "compilation-config": {**graphs, "cudagraph_capture_sizes": sizes}}


def _arm(name: ArmName, setup: Setup, steps: Path) -> Arm:
    if name is ArmName.off:
        return Arm(name=name.value)
    interval = _STEP_INTERVAL[name.mode]
    eplb = Eplb(
        window_size=interval,
        step_interval=interval,
        use_async=name.mode == "async",
        num_redundant_experts=setup.shape.redundant,
    )
    plugin: dict[str, JsonValue] = {"step_times_dir": str(steps), "enabled": not name.stock}
    return Arm(name=name.value, eplb=eplb, plugin=plugin)
