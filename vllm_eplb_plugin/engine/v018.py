# SPDX-License-Identifier: Apache-2.0
"""Overrides for vLLM 0.18, which computes, keeps, ships and commits three maps: here it is one.

``new_logical_to_physical_map`` and ``new_logical_replica_count`` of its `EplbModelState` are never
allocated. `move_to_buffer` is overridden for 0.19 too, whose transfer is the same.

What is left as it is: weights are sent over the WORLD group, not the EPLB group. Ranks are mapped
right, so that they arrive; and NCCL wants every rank in a group's first batch of transfers, which
holds for WORLD, because profiling passes a barrier over it, and not for the EPLB group, where a
rank with nothing to send makes no call; nor does any rank in a layer that does not change, whether
it is left out or not.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from vllm.distributed.eplb import eplb_state
from vllm.distributed.parallel_state import get_ep_group, get_node_count
from vllm.logger import init_logger

from vllm_eplb_plugin.engine.commit_points import commit_all_layers, commit_one_layer
from vllm_eplb_plugin.engine.state_hooks import follow_rearrange
from vllm_eplb_plugin.engine.unchanged_layers import begin_handover, pass_over_unchanged
from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.transfer import peer_layer, surviving, unchanged_layers
from vllm_eplb_plugin.transfer.own_buffers import in_own_buffers

logger = init_logger("vllm.eplb_plugin")

_STATE = "vllm.distributed.eplb.eplb_state"
_DELETE_WHEN = "vLLM 0.18 is no longer supported: from 0.19 on vLLM keeps one map itself."


def _override_rearrange(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def rearrange(
        self: Any, is_profile: bool = False, rank_mapping: dict[int, int] | None = None
    ) -> None:
        if self.is_async and not is_profile:
            # Hands the load window to the async worker, and nothing of maps.
            original(self, is_profile, rank_mapping)
        else:
            _rearrange_at_once(self, is_profile, rank_mapping)

    return follow_rearrange(rearrange)


def _rearrange_at_once(state: Any, is_profile: bool, rank_mapping: dict[int, int] | None) -> None:
    group = get_ep_group().device_group
    started = time.perf_counter()
    loads = state._allreduce_list(
        [_logical_load(state, model_state) for model_state in state.model_states.values()]
    )
    first = next(iter(state.model_states.values())).model
    num_replicas, num_nodes, num_ranks = _target(first.num_physical_experts, rank_mapping)
    for model_state, load in zip(state.model_states.values(), loads, strict=True):
        old = model_state.physical_to_logical_map.cpu()
        new = state.policy.rebalance_experts(
            load.cpu(), num_replicas, first.num_expert_groups, num_nodes, num_ranks, old
        )
        eplb_state.rearrange_expert_weights_inplace(
            old, new, model_state.model.expert_weights, group, is_profile, rank_mapping
        )
        if not is_profile:
            commit_all_layers(model_state, new)
    if group.rank() == 0:
        # As vLLM's own, the time ends when the device has done its part.
        if state.device.type != "cpu":
            torch.accelerator.synchronize()
        what = "(profile) " if is_profile else ""
        logger.info("Rearranged experts %sin %.2f s.", what, time.perf_counter() - started)


def _logical_load(state: Any, model_state: Any) -> torch.Tensor:
    """``[layers, logical]``: this rank's load window, of slots that hold an expert."""
    valid = state.num_valid_physical_experts
    placement = model_state.physical_to_logical_map[:, :valid].long()
    load: torch.Tensor = model_state.expert_load_window[:, :, :valid].sum(dim=0)
    shape = (model_state.model.num_moe_layers, model_state.model.num_logical_experts)
    return load.new_zeros(shape).scatter_add_(1, placement, load)


def _target(num_physical_experts: int, rank_mapping: dict[int, int] | None) -> tuple[int, int, int]:
    """Physical experts, nodes and EP ranks of the placement to come."""
    coordinator = get_ep_group()
    num_ranks = coordinator.device_group.size()
    num_replicas, num_nodes = num_physical_experts, get_node_count()
    if rank_mapping is not None and len(rank_mapping) == num_ranks:
        # Elastic EP shrinks: the ranks that go away still send, and are planned nothing.
        num_nodes = eplb_state._node_count_with_rank_mapping(
            coordinator.tcp_store_group, rank_mapping
        )
        slots_a_rank = num_physical_experts // num_ranks
        num_ranks = sum(new_rank != -1 for new_rank in rank_mapping.values())
        num_replicas = slots_a_rank * num_ranks
    if num_ranks % num_nodes != 0:
        logger.warning_once(
            "EPLB plans as if all %d EP ranks were on one node, because they are not spread "
            "evenly over the %d nodes.",
            num_ranks,
            num_nodes,
        )
        num_nodes = 1
    return num_replicas, num_nodes, num_ranks


def _run_rebalance_experts(
    model_state: Any, eplb_state: Any, physical_to_logical_map_cpu: torch.Tensor
) -> None:
    stats = model_state.eplb_stats
    # The load window is a clone that the main thread's stream may still be writing.
    model_state.window_ready_event.wait()
    model_state.window_ready_event = None
    model_state.new_physical_to_logical_map = eplb_state.policy.rebalance_experts(
        stats.global_expert_load_window.cpu(),
        stats.num_replicas,
        stats.num_groups,
        stats.num_nodes,
        stats.num_gpus,
        physical_to_logical_map_cpu,
    )
    begin_handover(model_state, physical_to_logical_map_cpu)


def _commit_received_layer(self: Any, model_state: Any, layer: int) -> None:
    commit_one_layer(model_state, model_state.new_physical_to_logical_map[layer], layer)
    pass_over_unchanged(model_state, layer)


def _post_eplb(self: Any, model_state: Any, is_profile: bool = False) -> None:
    model_state.new_physical_to_logical_map = None


def _override_move_to_buffer(original: Callable[..., Any]) -> Callable[..., Any]:
    fill = in_own_buffers(original)

    @functools.wraps(original)
    def move_to_buffer(*, cuda_stream: Any, **kwargs: Any) -> Any:
        if cuda_stream is None:
            return fill(cuda_stream=None, **kwargs)
        with torch.cuda.stream(cuda_stream):
            return fill(cuda_stream=cuda_stream, **kwargs)

    pull_or_send = peer_layer.pull_from_peers(move_to_buffer, before_0_20=True)
    moves = unchanged_layers.unless_unchanged(pull_or_send, before_0_20=True)
    return surviving.survive(moves, before_0_20=True)


OVERRIDES = (
    Override(
        target=f"{_STATE}:EplbState.rearrange",
        signature="(self, is_profile=False, rank_mapping=None)",
        kind="replace",
        replace=_override_rearrange,
        fixes="Three maps come from the policy, are padded to 1024 columns on the device and are "
        "copied one by one. The policy computes on the device, one small kernel after another.",
        delete_when=_DELETE_WHEN,
        releases="<0.19",
    ),
    Override(
        target="vllm.distributed.eplb.async_worker:run_rebalance_experts",
        signature="(model_state, eplb_state, physical_to_logical_map_cpu)",
        kind="replace",
        replace=lambda _: _run_rebalance_experts,
        fixes="All layers' l2p, 1024 columns wide, and replica counts are sent to the device and "
        "kept there until the last layer has moved.",
        delete_when=_DELETE_WHEN,
        releases="<0.19",
    ),
    Override(
        target=f"{_STATE}:EplbState._update_layer_mapping_from_new",
        signature="(self, model_state, layer)",
        kind="replace",
        replace=lambda _: _commit_received_layer,
        fixes="Does nothing, without a word, unless all three maps are there.",
        delete_when=_DELETE_WHEN,
        releases="<0.19",
    ),
    Override(
        target=f"{_STATE}:EplbState.post_eplb",
        signature="(self, model_state, is_profile=False)",
        kind="replace",
        replace=lambda _: _post_eplb,
        fixes="Asserts that all three maps are there.",
        delete_when=_DELETE_WHEN,
        releases="<0.19",
    ),
    Override(
        target="vllm.distributed.eplb.rebalance_execute:move_to_buffer",
        signature="(num_local_experts, old_indices, new_indices, expert_weights, "
        "expert_weights_buffers, cuda_stream, ep_group)",
        kind="replace",
        replace=_override_move_to_buffer,
        fixes="Experts that stay on their rank are copied to the buffer on the worker thread's "
        "default stream. That stream does not wait until the model's stream has taken the last "
        "layer out of the buffer (vLLM #32881 made only the transfer stream wait), nor does the "
        "model's stream wait for it: a slot can get the weights of another expert. And buffers are "
        f"like the first MoE layer's tensors, whatever the layer. {unchanged_layers.FIXES} "
        f"{peer_layer.FIXES} {surviving.FIXES}",
        delete_when="vLLM 0.19 is no longer supported: 0.20 copies on the transfer stream.",
        releases="<0.20",
    ),
)
