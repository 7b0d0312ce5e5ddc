# SPDX-License-Identifier: Apache-2.0
"""How long a plan takes: vLLM's default policy and its compiled form, on the same loads."""

import torch

from vllm_eplb_plugin.bench.result import BenchError, Row
from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.bench.timing import WARM_UP, alternate


def bench_plan(shape: Shape, rounds: int) -> list[Row]:
    """Plan skewed random loads on the CPU, each from the placement before it.

    Raises:
        BenchError: Results that differ.
    """
    from vllm.distributed.eplb.policy import DefaultEplbPolicy

    from vllm_eplb_plugin.planning.policies.default import CompiledPolicy

    generator = torch.Generator().manual_seed(0)
    size = (WARM_UP + rounds, shape.layers, shape.logical)
    loads = (torch.rand(size, generator=generator) ** 4 * 100_000).int()
    numbers = (shape.slots, shape.groups, shape.nodes, shape.ranks)
    slots = torch.arange(shape.slots) % shape.logical
    old = {name: slots.expand(shape.layers, -1).contiguous() for name in ("stock", "plugin")}

    def stock(number: int) -> None:
        answer = DefaultEplbPolicy.rebalance_experts(loads[number], *numbers, old["stock"])
        old["stock"] = answer[0] if isinstance(answer, tuple) else answer

    def plugin(number: int) -> None:
        old["plugin"] = CompiledPolicy.rebalance_experts(loads[number], *numbers, old["plugin"])

    times = alternate({"stock": stock, "plugin": plugin}, rounds, torch.device("cpu"))
    if not torch.equal(old["stock"], old["plugin"]):
        raise BenchError("vLLM's policy and its compiled form planned different placements")
    what = f"plan, {shape.ranks} ranks" + (f" on {shape.nodes} nodes" if shape.nodes > 1 else "")
    return [Row(str(shape), what, times["stock"].summary(), times["plugin"].summary())]
