# SPDX-License-Identifier: Apache-2.0
"""Terms of Triton's experts, which ``VLLM_BATCH_INVARIANT`` chooses on a GPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from vllm_eplb_plugin.combine.finalize import FINALIZE
from vllm_eplb_plugin.combine.terms import keep_sum
from vllm_eplb_plugin.overrides.override import Override


def _override_moe_sum(_: Callable[..., None]) -> Callable[..., None]:
    def moe_sum(
        self: Any,
        input: torch.Tensor,
        output: torch.Tensor,
        topk_ids: torch.Tensor | None = None,
        expert_map: torch.Tensor | None = None,
    ) -> None:
        is_here = None
        if topk_ids is not None and expert_map is not None:
            # Rows of experts elsewhere are not even written.
            is_here = (topk_ids >= 0) & (expert_map[topk_ids.long()] >= 0)
        keep_sum(input, is_here)

    return moe_sum


_BEFORE_0_31 = Override(
    target="vllm.model_executor.layers.fused_moe.experts.triton_moe:TritonExperts.moe_sum",
    signature="(self, input, output)",
    kind="replace",
    replace=_override_moe_sum,
    fixes="A rank's sum over its experts is rounded to the model's dtype.",
    delete_when=FINALIZE.delete_when,
    releases=">=0.21,<0.31",
)

MOE_SUM = (
    _BEFORE_0_31,
    replace(
        _BEFORE_0_31,
        signature="(self, input, output, topk_ids=None, expert_map=None)",
        releases=">=0.31",
    ),
)
