# SPDX-License-Identifier: Apache-2.0
"""Which fast ways a server would take here, found by taking them."""

from vllm_eplb_plugin.placement.fast_way import FastWay


def fast_ways(on_gpu: bool, compiled_policy: bool) -> list[FastWay]:
    """Try each fast way; this imports torch and vLLM, and compiles where there is no cache.

    Args:
        on_gpu: Whether commits are made on a GPU.
        compiled_policy: The setting of that name.
    """
    import torch
    from vllm.distributed.eplb.policy import DefaultEplbPolicy

    from vllm_eplb_plugin.placement import derive
    from vllm_eplb_plugin.planning.policies import fastest

    commits = derive.kernel_way(torch.device("cuda")) if on_gpu else derive.compiled_way()
    return [*([fastest.compiled_way(DefaultEplbPolicy)] if compiled_policy else []), commits]
