# SPDX-License-Identifier: Apache-2.0
"""What an async rearrangement costs in maps on vLLM 0.18: its own three, and this plugin's one.

    .venv-0.18.1/bin/python scripts/compare_maps.py [--device cuda]

Both are measured in one process on one EP rank, with the same loads and vLLM's own policy planning
for 32 ranks on 4 nodes. Shapes are DeepSeek-V3's: 58 MoE layers, 256 logical experts, 32 redundant
ones. Weights are a few bytes, because maps are what is measured.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
from vllm.config import ParallelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.distributed.eplb import async_worker
from vllm.distributed.eplb.eplb_state import EplbLayerState, EplbState, EplbStats
from vllm.model_executor.models.interfaces import MixtureOfExperts

from vllm_eplb_plugin.activation import activate
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.overrides.binding import bind
from vllm_eplb_plugin.overrides.catalogue import overrides_for

LAYERS, LOGICAL, REDUNDANT = 58, 256, 32
GROUPS, NODES, RANKS = 8, 4, 32
REARRANGEMENTS = 9
NEW_MAPS = (
    "new_physical_to_logical_map",
    "new_logical_to_physical_map",
    "new_logical_replica_count",
)


@dataclass(frozen=True)
class Measured:
    """One of the two, medians over rearrangements."""

    handed_over: dict[str, str]
    """What the worker keeps for the main thread: shape, dtype and device."""
    handed_over_device_bytes: int
    """Of these, on the device until the last layer was committed."""
    l2p_bytes: int
    """The l2p that the model reads, all layers."""
    policy_ms: float
    worker_ms: float
    """The worker's time for one rearrangement's maps, policy included."""
    commit_layer_us: float
    """The main thread's time to make one layer visible; on a GPU, until it has queued it."""


class Layer:
    """A MoE layer without experts worth the name."""

    def __init__(self, slots: int, device: str) -> None:
        self.eplb_state = EplbLayerState()
        self.weight = torch.zeros(slots, 1, device=device)

    def get_expert_weights(self) -> list[torch.Tensor]:
        return [self.weight]

    def set_eplb_state(self, moe_layer_idx: int, **tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            setattr(self.eplb_state, name, tensor[moe_layer_idx])


class Model(MixtureOfExperts):
    """What `EplbState` asks of a model."""

    def __init__(self, device: str) -> None:
        self.num_moe_layers, self.num_expert_groups = LAYERS, GROUPS
        self.num_logical_experts = self.num_routed_experts = LOGICAL
        self.num_redundant_experts, self.num_shared_experts = REDUNDANT, 0
        self.num_physical_experts = self.num_local_physical_experts = LOGICAL + REDUNDANT
        self.expert_weights = []
        self.moe_layers = [Layer(LOGICAL + REDUNDANT, device) for _ in range(LAYERS)]


def measure(config: Any, device: str) -> Measured:
    """Run rearrangements as the async worker and the main thread do, one after the other."""
    state = EplbState(config, torch.device(device))
    state.add_model(Model(device), SimpleNamespace(model="maps", compute_hash=lambda: "maps"))
    model_state = state.model_states["maps"]
    generator = torch.Generator().manual_seed(0)
    policy, worker, commit = [], [], []
    for _ in range(REARRANGEMENTS):
        load = (torch.rand(LAYERS, LOGICAL, generator=generator) ** 4 * 10_000).int().to(device)
        placement = model_state.physical_to_logical_map.cpu()
        shape = (LOGICAL + REDUNDANT, GROUPS, NODES, RANKS)
        model_state.eplb_stats = EplbStats(load, *shape)
        event = async_worker.torch.cuda.Event()
        event.record()
        model_state.window_ready_event = event
        policy.append(seconds(state.policy.rebalance_experts, load.cpu(), *shape, placement))
        worker.append(
            seconds(async_worker.run_rebalance_experts, model_state, state, placement, wait=True)
        )
        new = {name: getattr(model_state, name) for name in NEW_MAPS}
        commit += [
            seconds(state._update_layer_mapping_from_new, model_state, layer)
            for layer in range(LAYERS)
        ]
        state.post_eplb(model_state)
    kept = {name: tensor for name, tensor in new.items() if tensor is not None}
    return Measured(
        {name: f"{list(t.shape)} {t.dtype} {t.device}" for name, t in kept.items()},
        # p2l stays on the host in both.
        sum(tensor.nbytes for name, tensor in kept.items() if name != NEW_MAPS[0]),
        model_state.logical_to_physical_map.nbytes,
        statistics.median(policy) * 1e3,
        statistics.median(worker) * 1e3,
        statistics.median(commit) * 1e6,
    )


def seconds(function: Any, *arguments: Any, wait: bool = False) -> float:
    """Time of one call; ``wait``: until the device has done its part too."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    function(*arguments)
    if wait and torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    device = parser.parse_args().device
    torch.set_num_threads(1)
    overrides = overrides_for(installed_support().release)
    if device == "cpu":
        bind(overrides.loopback)
    parallel = ParallelConfig(enable_expert_parallel=True)
    with set_current_vllm_config(VllmConfig(parallel_config=parallel)):
        backend = "gloo" if device == "cpu" else "nccl"
        parallel_state.init_distributed_environment(1, 0, "tcp://127.0.0.1:0", 0, backend)
        for name in ("_EP", "_EPLB"):
            group = parallel_state.init_model_parallel_group([[0]], 0, backend, group_name=name)
            setattr(parallel_state, name, group)
        stock = measure(parallel, device)
        activate()
        single = measure(parallel, device)
    print(json.dumps({"stock": asdict(stock), "single map": asdict(single)}, indent=2))


if __name__ == "__main__":
    main()
