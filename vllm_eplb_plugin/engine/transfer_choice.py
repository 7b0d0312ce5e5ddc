# SPDX-License-Identifier: Apache-2.0
"""How a model's expert weights get to other ranks: settled at start, by all ranks together."""

import inspect
import logging
import time
from typing import Any

import numpy as np
import torch
from torch.distributed import ProcessGroup, ReduceOp, all_reduce
from vllm.distributed.eplb import rebalance_execute
from vllm.distributed.parallel_state import get_eplb_group

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine.arrivals import Arrivals
from vllm_eplb_plugin.engine.peers import Peers
from vllm_eplb_plugin.engine.rendezvous import meet
from vllm_eplb_plugin.settings import Settings
from vllm_eplb_plugin.weight_routes import nixl_advice

logger = logging.getLogger("vllm.eplb_plugin")

_TRIALS = 4
"""Of each way; the first one makes connections."""


class PeersRefusedError(RuntimeError):
    """Ranks are to read each other's memory and cannot."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"transfer='peer', and EP ranks cannot read each other's expert weights: {reason}. "
            "With transfer='auto' they go through vLLM's communicator"
        )


def choose_transfer(
    state: Any, model_state: Any, ranks: Any, settings: Settings, limit_seconds: float
) -> tuple[Peers | None, str]:
    """Open peers' memory where that is asked for, can be had, and is not the slower way.

    All EP ranks call together, with the same settings, when vLLM has added the model.

    Args:
        state: An `EplbState`.
        model_state: One of its models.
        ranks: vLLM's group of EP ranks.
        settings: Of the server.
        limit_seconds: How long to wait for a rank that still loads.

    Returns:
        None where peers are out of the question, and what the log says of it.

    Raises:
        PeersRefusedError: ``transfer`` is ``peer`` and they cannot be had; on every rank.
        RanksMissingError: A rank did not come.
    """
    communicator = getattr(model_state, "communicator", None)  # none before 0.20
    vllm_way = "vLLM's own way" if communicator is None else type(communicator).__name__
    if settings.transfer == "vllm" or ranks.world_size == 1 or not model_state.model.num_moe_layers:
        return None, vllm_way
    model, arrivals = model_state.model, Arrivals(state, settings.rank_timeout_s)
    peers = Peers(lambda: model.expert_weights, arrivals)
    if state.parallel_config.enable_elastic_ep:
        # Ranks that join come to the first plan, not here.
        return peers, f"read from memory of ranks on the same host if it can be, else {vllm_way}"
    meet(ranks, "expert weights of other ranks", None, limit_seconds)
    group = get_eplb_group().cpu_group
    reason = peers.open(group)
    if reason is None and settings.transfer == "auto" and "Nixl" in vllm_way:
        reason = _why_not_faster(model_state, ranks.rank_in_group, group)
    if reason is None:
        if (hosts := len(set(peers.hosts))) == 1:
            return peers, "read from the other ranks' memory"
        return peers, f"read from memory of ranks on the same of {hosts} hosts, else {vllm_way}"
    if settings.transfer == "peer":
        raise PeersRefusedError(reason)
    peers.close()
    if ranks.rank_in_group == 0 and state.device.type == "cuda" and "Gloo" in vllm_way:
        advice = nixl_advice(installed_support().release, torch.version.hip is not None)
        logger.warning("EPLB cannot read other ranks' expert weights (%s): %s.", reason, advice)
    return None, f"{vllm_way} ({reason})"


def _why_not_faster(model_state: Any, ep_rank: int, group: ProcessGroup) -> str | None:
    """Transfer the first layer into the buffer, each way several times, and commit nothing."""
    by_peers = _seconds(model_state, ep_rank, group)
    layer = model_state.model.expert_weights[0]
    opened, layer.peers = layer.peers, None
    try:
        by_vllm = _seconds(model_state, ep_rank, group)
    finally:
        layer.peers = opened
    if by_peers < by_vllm:
        return None
    return f"it took {by_vllm * 1000:.1f} ms a layer, from peers' memory {by_peers * 1000:.1f}"


def _seconds(model_state: Any, ep_rank: int, group: ProcessGroup) -> float:
    """The fastest of several transfers, on the slowest rank: every expert goes to the next rank."""
    old = model_state.physical_to_logical_map[0].cpu().numpy()
    weights = model_state.model.expert_weights[0]
    slots = len(weights[0])
    given = {
        "num_local_experts": slots,
        "old_indices": old,
        "new_indices": np.roll(old, slots),
        "expert_weights": weights,
        "expert_weights_buffers": model_state.expert_buffer,
        "ep_rank": ep_rank,
        "communicator": model_state.communicator,
        "layer_idx": 0,
    }
    names = inspect.signature(rebalance_execute.move_to_buffer).parameters
    given |= {name: None for name in ("stream", "cuda_stream") if name in names}
    given = {name: value for name, value in given.items() if name in names}
    times = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        rebalance_execute.move_to_buffer(**given)
        seconds = torch.tensor([time.perf_counter() - started])
        all_reduce(seconds, op=ReduceOp.MAX, group=group)
        times.append(float(seconds))
    return min(times[1:])
