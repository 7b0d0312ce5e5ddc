# SPDX-License-Identifier: Apache-2.0
"""What the latency benchmark serves, as a configuration."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from eval.commands.arm_names import ServedName
from eval.commands.latency_gpus import RANKS
from eval.commands.served_alike import (
    BY_CHANCE,
    LEAST_KV_CACHE_BYTES,
    environment_of,
    graphs_or_none,
    share_of_memory,
)
from eval.config.schema import Arm, Config, Eplb
from eval.config.serve_section import Serve
from eval.results.latency import ModelShape

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


class ArmName(ServedName, Enum):
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


class Checks(str, Enum):
    """Whether arms of the plugin are served with weight checks, under names of their own."""

    none = "none"
    again = "again"
    """After all arms that are timed."""
    only = "only"
    """And nothing is timed."""


class Transfer(str, Enum):
    """Of ``--transfer``."""

    auto = "auto"
    peer = "peer"
    vllm = "vllm"


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
        return environment_of(self.gpus)


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
    return options | graphs_or_none(setup.graphs, setup.streams)


def _memory(setup: Setup) -> dict[str, JsonValue]:
    """A cache of one size in every arm: what else differs in memory is EPLB's."""
    share = share_of_memory(setup.servers_at_once)
    if setup.switching is None:
        cache = max(_KV_CACHE_BYTES, setup.streams * _KV_CACHE_BYTES_A_STREAM)
        return {"kv-cache-memory-bytes": cache, "gpu-memory-utilization": share}
    length = _SWITCHING_LENGTH + setup.tokens
    needed = setup.streams * length * setup.shape.cache_bytes_a_token
    return {
        "kv-cache-memory-bytes": max(LEAST_KV_CACHE_BYTES, needed),
        "gpu-memory-utilization": share,
        # Its activations are in memory as long as the server runs.
        "max-num-batched-tokens": max(1024, setup.streams),
    }


def _arm(name: ArmName, setup: Setup, arms_folder: Path, checks: bool = False) -> Arm:
    if name is ArmName.off:
        return Arm(name=name.value)
    if name is ArmName.balanced:
        return Arm(name=name.value, environment=BY_CHANCE)
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
