# SPDX-License-Identifier: Apache-2.0
"""The arms, and the command line of each one's server."""

import json
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from eval.commands.latency_gpus import RANKS
from eval.commands.latency_model import ModelShape
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


def arm_command(name: ArmName, setup: Setup, port: int, steps: Path) -> list[str]:
    """Program and arguments of one arm's server, which writes its step times into ``steps``."""
    options: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "load-format": "dummy",
        "dtype": "bfloat16" if setup.gpus else "float32",
        "max-model-len": 4096,
        "max-num-seqs": setup.streams,
        "data-parallel-size": RANKS,
        "api-server-count": 1,
    }
    if setup.gpus:
        # A cache of one size in every arm: what else differs in memory is EPLB's.
        cache = max(_KV_CACHE_BYTES, setup.streams * _KV_CACHE_BYTES_A_STREAM)
        # Of the share vLLM then only checks that it is free when a server starts.
        options |= {"kv-cache-memory-bytes": cache, "gpu-memory-utilization": 0.1}
    if setup.graphs:
        # Graphs of decoding without torch.compile, whose minutes this benchmark does not need.
        sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= setup.streams]
        graphs = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}
        options |= {"compilation-config": json.dumps(graphs)}
    plugin: dict[str, Any] = {"loopback": True} if setup.loopback else {}
    flags = ["--enable-expert-parallel", *([] if setup.graphs else ["--enforce-eager"])]
    if name != ArmName.off:
        plugin |= {"step_times_dir": str(steps), "enabled": not name.stock}
        interval = _STEP_INTERVAL[name.mode]
        eplb: dict[str, Any] = {"window_size": interval, "step_interval": interval}
        eplb |= {"use_async": name.mode == "async", "num_redundant_experts": setup.shape.redundant}
        flags += ["--enable-eplb", "--eplb-config", json.dumps(eplb)]
    options |= {"additional-config": json.dumps({"eplb_plugin": plugin})}
    pairs = chain.from_iterable((f"--{option}", str(value)) for option, value in options.items())
    return [setup.executable, "serve", str(setup.model), *pairs, *flags]
