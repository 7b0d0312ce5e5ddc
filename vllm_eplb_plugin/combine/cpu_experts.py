# SPDX-License-Identifier: Apache-2.0
"""Terms of vLLM's experts on a CPU, whose kernel gives sums: asked one choice at a time."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.combine.finalize import FINALIZE
from vllm_eplb_plugin.combine.terms import keep_sum
from vllm_eplb_plugin.overrides.override import Override


def _override_cpu_fused_moe(original: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def cpu_fused_moe(*args: Any, **kwargs: Any) -> None:
        call = signature.bind(*args, **kwargs).arguments
        weights, ids, out = call["topk_weights"], call["topk_ids"], call["out"]
        terms = out.new_empty((ids.shape[1], *out.shape))
        for choice, term in enumerate(terms):
            one = slice(choice, choice + 1)
            original(
                **{
                    **call,
                    "out": term,
                    "topk_weights": weights[:, one].contiguous(),
                    "topk_ids": ids[:, one].contiguous(),
                }
            )
        # Experts elsewhere have the weight 0 in loopback.
        out.copy_(keep_sum(terms.transpose(0, 1)))

    return cpu_fused_moe


CPU_FUSED_MOE = Override(
    target="vllm.model_executor.layers.fused_moe.experts.cpu_moe:cpu_fused_moe",
    signature="(out, input, w13, w2, w13_bias, w2_bias, topk_weights, topk_ids, act, isa, "
    "skip_weighted=False)",
    kind="replace",
    replace=_override_cpu_fused_moe,
    fixes="A rank's sum over its experts is rounded to the model's dtype.",
    delete_when=FINALIZE.delete_when,
    releases=">=0.32",
)
