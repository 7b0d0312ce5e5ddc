# SPDX-License-Identifier: Apache-2.0
"""What vLLM's `EplbState` needs around it: one EP rank, and a model that is nothing but experts."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from vllm.config import ParallelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.distributed.eplb.eplb_state import EplbLayerState

from vllm_eplb_plugin.bench.shapes import Shape


class _Layer:
    def __init__(self) -> None:
        self.eplb_state = EplbLayerState()


class Experts:
    """vLLM's `MixtureOfExperts` of a shape: all are on this rank, each of a single number."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.num_moe_layers, self.num_expert_groups = shape.layers, shape.groups
        self.num_logical_experts = self.num_routed_experts = shape.logical
        self.num_redundant_experts, self.num_shared_experts = shape.redundant, 0
        self.num_physical_experts = self.num_local_physical_experts = shape.slots
        self.moe_layers: Any = [_Layer() for _ in range(shape.layers)]
        self.expert_weights = [
            [torch.zeros(shape.slots, 1, device=device)] for _ in range(shape.layers)
        ]

    def set_eplb_state(
        self,
        expert_load_view: torch.Tensor,
        logical_to_physical_map: torch.Tensor,
        logical_replica_count: torch.Tensor,
    ) -> None:
        """Keep what the router of each layer reads and writes."""
        for number, layer in enumerate(self.moe_layers):
            layer.eplb_state.expert_load_view = expert_load_view[number]
            layer.eplb_state.logical_to_physical_map = logical_to_physical_map[number]
            layer.eplb_state.logical_replica_count = logical_replica_count[number]


def model_config(shape: Shape) -> Any:
    """What `EplbState` asks of a `ModelConfig`."""
    return SimpleNamespace(model=shape.name, compute_hash=lambda: shape.name)


@contextlib.contextmanager
def one_rank(eplb: dict[str, Any], plugin: dict[str, Any]) -> Iterator[ParallelConfig]:
    """vLLM's configuration and process groups of a single EP rank, as long as this is open.

    Args:
        eplb: vLLM's own options of EPLB.
        plugin: The plugin's settings.
    """
    parallel = ParallelConfig(eplb_config=eplb)
    config = VllmConfig(parallel_config=parallel, additional_config={"eplb_plugin": plugin})
    parallel = config.parallel_config
    parallel.enable_eplb = True  # which vLLM refuses for a single rank, and on a CPU
    parallel.eplb_config.use_async = eplb["use_async"]  # which 0.18 and 0.19 turn off
    if hasattr(parallel.eplb_config, "communicator"):
        parallel.eplb_config.communicator = "torch_gloo"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder, set_current_vllm_config(config):
        store = f"file://{folder}/store"
        try:
            parallel_state.init_distributed_environment(1, 0, store, 0, "gloo")
            parallel_state.initialize_model_parallel(backend="gloo")
            yield parallel
        finally:
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()
