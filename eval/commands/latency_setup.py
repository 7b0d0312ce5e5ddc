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
_SWITCHING_INTERVAL = 20
CHECKED = "-checked"
"""Ends the name of an arm that is served once more."""
_KV_CACHE_BYTES = 2 * 2**30
"""Of each rank, at least: 31,000 tokens of the wide shape, and a rank has half of the streams."""
_KV_CACHE_BYTES_A_STREAM = _KV_CACHE_BYTES // 8
_SWITCHING_LENGTH = 192
"""Of a sequence, beside its tokens."""
_KV_BYTES_A_TOKEN = 2 * (512 + 64)
"""Of a layer of latent attention, in bfloat16."""
_LEAST_KV_CACHE_BYTES = 2**28
_SHARE_OF_ALL = 0.4
"""Of the memory, over all servers."""
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


_BY_CHANCE = {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": "uniform_random"}
"""vLLM's own, in every release of the table."""


class ArmName(str, Enum):
    """Which servers there are, named as those of an evaluation."""

    off = "off"
    balanced = "balanced"
    """Without EPLB, and each token goes to experts by chance: the most that balance is worth."""
    stock_sync = "stock-sync"
    sync = "sync"
    sync_incremental = "sync-incremental"
    stock_async = "stock-async"
    async_ = "async"
    async_incremental = "async-incremental"

    @property
    def stock(self) -> bool:
        """Whether its EPLB is vLLM's own."""
        return self.value.startswith("stock-")

    @property
    def plugin(self) -> bool:
        """Whether its EPLB is the plugin's."""
        return self not in (ArmName.off, ArmName.balanced) and not self.stock

    @property
    def incremental(self) -> bool:
        """Whether it plans by the plugin's policy of that name, not as vLLM does."""
        return self.value.endswith("-incremental")

    @property
    def mode(self) -> str:
        """Of its EPLB."""
        return self.value.removeprefix("stock-").removesuffix("-incremental")


class Checks(str, Enum):
    """Whether arms of the plugin are served with weight checks, under names of their own."""

    none = "none"
    again = "again"
    """After all arms that are timed."""
    only = "only"
    """And nothing is timed."""


class Switching(NamedTuple):
    """A load whose domains take turns."""

    completions: int
    """In all, at most."""
    turn: int
    """Prompts of one domain before the first of the next."""
    most_seconds: float | None
    """After which no completion is begun; None: until all were."""


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
    ranks: int = RANKS
    switching: Switching | None = None
    """None: a steady load."""
    interval: int | None = None
    """Of EPLB's steps; None: by mode, and with a load that switches `_SWITCHING_INTERVAL`."""
    transfer: str | None = None
    """The plugin's setting of that name; None: the plugin's default."""
    all2all: str | None = None
    """``--all2all-backend``; None: vLLM's default."""
    checks: Checks = Checks.none
    servers_at_once: int = 1

    @property
    def loopback(self) -> bool:
        """Fewer GPUs than ranks."""
        return len(self.gpus) < self.ranks

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
    served = [_arm(one, setup, arms_folder) for one in known]
    if setup.checks is not Checks.none:
        served += [_arm(one, setup, arms_folder, checks=True) for one in known if one.plugin]
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
        arms=served,
    )


def _options(setup: Setup) -> dict[str, JsonValue]:
    options: dict[str, JsonValue] = {
        "load-format": "auto" if setup.switching else "dummy",
        "dtype": "bfloat16" if setup.gpus else "float32",
        "max-model-len": _SWITCHING_LENGTH + setup.tokens if setup.switching else 4096,
        "max-num-seqs": setup.streams,
        "data-parallel-size": setup.ranks,
        "api-server-count": 1,
        "enable-expert-parallel": True,
    }
    if setup.all2all is not None:
        options["all2all-backend"] = setup.all2all
    if setup.gpus:
        options |= _memory(setup)
    if not setup.graphs:
        return {**options, "enforce-eager": True}
    # Graphs of decoding without torch.compile, whose minutes this benchmark does not need.
    sizes: list[JsonValue] = [size for size in (1, 2, 4, 8, 16, 32) if size <= setup.streams]
    graphs: dict[str, JsonValue] = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    return {**options, "compilation-config": {**graphs, "cudagraph_capture_sizes": sizes}}


def _memory(setup: Setup) -> dict[str, JsonValue]:
    """A cache of one size in every arm: what else differs in memory is EPLB's.

    Of the share, vLLM then only checks that it is free when a server starts; of servers that start
    together, the last has to find it, too.
    """
    share = min(0.1, round(_SHARE_OF_ALL / setup.servers_at_once, 3))
    if setup.switching is None:
        cache = max(_KV_CACHE_BYTES, setup.streams * _KV_CACHE_BYTES_A_STREAM)
        return {"kv-cache-memory-bytes": cache, "gpu-memory-utilization": share}
    length = _SWITCHING_LENGTH + setup.tokens
    needed = setup.streams * length * (1 + setup.shape.moe_layers) * _KV_BYTES_A_TOKEN
    return {
        "kv-cache-memory-bytes": max(_LEAST_KV_CACHE_BYTES, needed),
        "gpu-memory-utilization": share,
        # Its activations are in memory as long as the server runs.
        "max-num-batched-tokens": max(1024, setup.streams),
    }


def _arm(name: ArmName, setup: Setup, arms_folder: Path, checks: bool = False) -> Arm:
    if name is ArmName.off:
        return Arm(name=name.value)
    if name is ArmName.balanced:
        return Arm(name=name.value, environment=_BY_CHANCE)
    called = f"{name.value}{CHECKED}" if checks else name.value
    usual = _SWITCHING_INTERVAL if setup.switching else _STEP_INTERVAL[name.mode]
    interval = setup.interval or usual
    eplb = Eplb(
        window_size=interval,
        step_interval=interval,
        use_async=name.mode == "async",
        num_redundant_experts=setup.shape.redundant,
    )
    steps = str(arms_folder / called / "steps")
    plugin: dict[str, JsonValue] = {"step_times_dir": steps, "enabled": not name.stock}
    if name.incremental:
        plugin["planning"] = {"policy": "incremental"}
    if name.plugin and setup.transfer is not None:
        plugin["transfer"] = setup.transfer
    if checks:
        plugin["check_weights"] = True
    return Arm(name=called, eplb=eplb, plugin=plugin)
