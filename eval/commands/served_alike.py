# SPDX-License-Identifier: Apache-2.0
"""What all servers of one run of latency or throughput get, whatever they serve."""

from collections.abc import Sequence

from pydantic import JsonValue

from eval.serving.command import HOST

BY_CHANCE = {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": "uniform_random"}
"""Each token goes to experts by chance: vLLM's own, in every release of the table."""

LEAST_KV_CACHE_BYTES = 2**28

_GRAPHS = (1, 2, 4, 8, 16, 32)
"""Tokens of a step."""
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


def environment_of(gpus: Sequence[str]) -> dict[str, str]:
    """Of every server.

    Args:
        gpus: Entries of ``CUDA_VISIBLE_DEVICES``; none: the CPU.
    """
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return {**_ENVIRONMENT, **visible, **({} if gpus else _CPU_ENVIRONMENT)}


def share_of_memory(servers_at_once: int) -> float:
    """``--gpu-memory-utilization`` beside a cache of a fixed size.

    Of the share, vLLM then only checks that it is free when a server starts; of servers that start
    together, the last has to find it, too.
    """
    return min(0.1, round(_SHARE_OF_ALL / servers_at_once, 3))


def graphs_or_none(graphs: bool, streams: int) -> dict[str, JsonValue]:
    """CUDA graphs of decoding without torch.compile, whose minutes no benchmark needs."""
    if not graphs:
        return {"enforce-eager": True}
    sizes: list[JsonValue] = [size for size in _GRAPHS if size <= streams]
    how: dict[str, JsonValue] = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    return {"compilation-config": {**how, "cudagraph_capture_sizes": sizes}}
