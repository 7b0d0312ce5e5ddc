# SPDX-License-Identifier: Apache-2.0
"""Where ranks' sums are added: by all-gather and reduce-scatter, in float64, rounded once."""

from collections.abc import Callable
from typing import Any

import torch

from vllm_eplb_plugin.combine.terms import take_sum
from vllm_eplb_plugin.overrides.override import Override


def _override_finalize(_: Callable[..., None]) -> Callable[..., None]:
    def finalize(
        self: Any,
        output: torch.Tensor,
        fused_expert_output: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        apply_router_weight_on_input: bool,
        weight_and_reduce_impl: Any,
    ) -> None:
        from vllm.distributed import get_ep_group

        total = take_sum(fused_expert_output.shape[0])
        output.copy_(get_ep_group().combine(total, is_sequence_parallel=self.is_sequence_parallel))

    return finalize


FINALIZE = Override(
    target="vllm.model_executor.layers.fused_moe.prepare_finalize.naive_dp_ep:"
    "MoEPrepareAndFinalizeNaiveDPEPModular.finalize",
    signature="(self, output, fused_expert_output, topk_weights, topk_ids, "
    "apply_router_weight_on_input, weight_and_reduce_impl)",
    kind="replace",
    replace=_override_finalize,
    fixes="Each rank's sum is rounded to the model's dtype before ranks are added: an expert that "
    "moves changes the last bits of answers.",
    delete_when="vLLM adds experts' outputs in the same order wherever they live.",
    releases=">=0.21",
)
