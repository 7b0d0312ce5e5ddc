# SPDX-License-Identifier: Apache-2.0
"""What the throughput benchmark serves, as a configuration, and which servers are up together."""

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
    share_of_memory,
)
from eval.config.schema import Arm, Config, Eplb
from eval.config.serve_section import Serve
from eval.errors import ConfigError
from eval.results.latency import ModelShape
from eval.results.throughput import Traffic

INTERVAL = 100
"""Of EPLB's window and steps: a measurement has several rearrangements."""
LOADS = "loads"
"""Folder of an arm, for what it records."""
_GRAPHS = (1, 2, 4, 8, 16, 32, *range(64, 513, 64))
"""Tokens of a step. Fewer sizes than vLLM's own, each of which takes a second of every start."""
_BATCHED_TOKENS = 8192
"""Of a step, which is as many as vLLM's server takes on large GPUs."""
_CACHE_OF_A_MODEL = 4 * 2**30


class ThroughputArm(ServedName, Enum):
    """Which servers there are, named as those of an evaluation."""

    off = "off"
    balanced = "balanced"
    stock_sync = "stock-sync"
    sync = "sync"
    sync_incremental = "sync-incremental"
    stock_async = "stock-async"
    async_ = "async"
    async_incremental = "async-incremental"
    warm = "warm"


class ThroughputSetup(NamedTuple):
    """What all arms have in common."""

    executable: str
    """The ``vllm`` that serves."""
    model: Path
    shape: ModelShape | None
    """Of the random model; None: one was given."""
    redundant: int
    gpus: tuple[str, ...]
    """Entries of ``CUDA_VISIBLE_DEVICES``."""
    graphs: bool
    streams: int
    traffics: Sequence[Traffic]
    ranks: int = RANKS
    interval: int = INTERVAL
    """Of EPLB's steps."""
    transfer: str | None = None
    """The plugin's setting of that name; None: the plugin's default."""
    all2all: str | None = None
    """``--all2all-backend``; None: vLLM's default."""
    initial: Path | None = None
    """A recording or a placement that arm ``warm`` begins by; None: an arm records one."""
    servers_at_once: int = 1

    @property
    def loopback(self) -> bool:
        """Fewer GPUs than ranks."""
        return len(self.gpus) < self.ranks


def recorder_of(setup: ThroughputSetup, names: Sequence[ThroughputArm]) -> ThroughputArm | None:
    """The arm that records what arm ``warm`` begins by; None: none has to.

    Raises:
        ConfigError: None could.
    """
    if ThroughputArm.warm not in names or setup.initial is not None:
        return None
    able = [one for one in names if one.plugin and one is not ThroughputArm.warm]
    if not able:
        raise ConfigError(
            "--arm warm begins by loads that an arm of the plugin records before, and there is "
            "none: add --arm async, or give a recording with --initial"
        )
    return min(able, key=lambda one: one.incremental)


def groups_of(
    names: Sequence[ThroughputArm], at_once: int, recorder: ThroughputArm | None
) -> list[list[ThroughputArm]]:
    """Which servers are up together, each group after the one before.

    With two or more at once, arm ``off`` is up all the time and in every group, so that every arm
    is measured beside it.

    Args:
        names: Of the arms.
        at_once: Servers in a group at most.
        recorder: Whose server has to have ended before that of arm ``warm`` starts.
    """
    kept = [one for one in names if one is ThroughputArm.off] if at_once > 1 else []
    waits = [one for one in names if one is ThroughputArm.warm and recorder is not None]
    others = [one for one in names if one not in (*kept, *waits)]
    size = at_once - len(kept)
    groups = [others[first : first + size] for first in range(0, len(others), size)]
    if waits and (not groups or recorder in groups[-1] or len(groups[-1]) == size):
        groups.append([])
    for one in waits:
        groups[-1].append(one)
    return [[*kept, *group] for group in groups or [[]]]


def throughput_config(
    name: str, setup: ThroughputSetup, arms: Sequence[ThroughputArm], arms_folder: Path
) -> Config:
    """What is served, as a configuration like any other; its tasks are none.

    Args:
        name: Of the run.
        setup: What all arms have in common.
        arms: Those to measure. The baseline is told of even where it is not among them.
        arms_folder: Has a folder for each.

    Raises:
        ConfigError: Arm ``warm`` has nothing to begin by.
    """
    recorder = recorder_of(setup, arms)
    loads = (arms_folder / recorder.value / LOADS).absolute() if recorder else setup.initial
    known = dict.fromkeys([ThroughputArm.off, *arms])
    return Config(
        name=name,
        model=str(setup.model),
        tasks=[],
        serve=Serve(
            executable=setup.executable,
            start_timeout=1800,
            options=_options(setup),
            environment=environment_of(setup.gpus),
        ),
        plugin={"loopback": True} if setup.loopback else {},
        arms=[_arm(one, setup, loads, one is recorder) for one in known],
    )


def _options(setup: ThroughputSetup) -> dict[str, JsonValue]:
    options: dict[str, JsonValue] = {
        "load-format": "auto",
        "dtype": "bfloat16" if setup.gpus else "float32",
        "max-num-seqs": setup.streams,
        "data-parallel-size": setup.ranks,
        "api-server-count": 1,
        "enable-expert-parallel": True,
        # Every round would find what the one before it had to read.
        "enable-prefix-caching": False,
    }
    if setup.shape is not None:
        options["max-model-len"] = _longest(setup)
    if setup.all2all is not None:
        options["all2all-backend"] = setup.all2all
    if setup.gpus:
        options |= _memory(setup)
    return options | _graphs(setup.graphs)


def _graphs(wanted: bool) -> dict[str, JsonValue]:
    """Compiled as by default: prompts that arrive all the time are in a graph's steps, too."""
    if not wanted:
        return {"enforce-eager": True}
    return {"compilation-config": {"cudagraph_capture_sizes": list(_GRAPHS)}}


def _longest(setup: ThroughputSetup) -> int:
    return max(one.prompt_tokens + one.tokens for one in setup.traffics)


def _memory(setup: ThroughputSetup) -> dict[str, JsonValue]:
    """A cache of one size in every arm: what else differs in memory is EPLB's."""
    cache = _CACHE_OF_A_MODEL
    if setup.shape is not None:
        needed = setup.streams * _longest(setup) * setup.shape.cache_bytes_a_token
        cache = max(LEAST_KV_CACHE_BYTES, needed)
    return {
        "kv-cache-memory-bytes": cache,
        "gpu-memory-utilization": share_of_memory(setup.servers_at_once),
        "max-num-batched-tokens": max(_BATCHED_TOKENS, setup.streams),
    }


def _arm(name: ThroughputArm, setup: ThroughputSetup, loads: Path | None, records: bool) -> Arm:
    if name is ThroughputArm.off:
        return Arm(name=name.value)
    if name is ThroughputArm.balanced:
        return Arm(name=name.value, environment=BY_CHANCE)
    eplb = Eplb(
        window_size=setup.interval,
        step_interval=setup.interval,
        use_async=name.mode != "sync",
        num_redundant_experts=setup.redundant,
    )
    plugin: dict[str, JsonValue] = {"enabled": not name.stock}
    if name.plugin:
        # Told, so that loads are counted for the experts that caused them, with every policy.
        plugin["planning"] = {"policy": "incremental" if name.incremental else "default"}
        if setup.transfer is not None:
            plugin["transfer"] = setup.transfer
    if records:
        plugin["recording"] = {"dir": str(loads)}
    if name is ThroughputArm.warm:
        plugin["planning"] = {
            "policy": "default",
            "initial": {"path": str(loads), "any_name": True},
            "rearrange": "never",
        }
    return Arm(name=name.value, eplb=eplb, plugin=plugin)
