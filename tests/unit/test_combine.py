# SPDX-License-Identifier: Apache-2.0
"""Experts' outputs are added to the same bits wherever experts live, by vLLM's own kernels."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.model_executor.layers.fused_moe.experts import cpu_moe
from vllm.model_executor.layers.fused_moe.prepare_finalize.naive_dp_ep import (
    MoEPrepareAndFinalizeNaiveDPEPModular,
)

from vllm_eplb_plugin.combine.cpu_experts import CPU_FUSED_MOE
from vllm_eplb_plugin.combine.finalize import FINALIZE
from vllm_eplb_plugin.combine.terms import CombineError, keep_sum, take_sum
from vllm_eplb_plugin.combine.triton_experts import MOE_SUM
from vllm_eplb_plugin.loopback.cpu.experts import keep_local_experts
from vllm_eplb_plugin.overrides.binding import bind, unbind
from vllm_eplb_plugin.overrides.override import select

EXPERTS, TOP_K, HIDDEN, CHANNELS = 16, 6, 64, 32


class Layer:
    """An MoE layer whose slots are spread over two ranks, computed by vLLM's kernel for a CPU."""

    def __init__(self, dtype: torch.dtype, tokens: int = 40) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(dtype) / 4

        self.gate_up, self.down = (
            drawn(EXPERTS, 2 * CHANNELS, HIDDEN),
            drawn(EXPERTS, HIDDEN, CHANNELS),
        )
        self.hidden = drawn(tokens, HIDDEN)
        self.ids = torch.rand(tokens, EXPERTS, generator=generator).argsort(dim=1)[:, :TOP_K].int()
        self.weights = torch.rand(tokens, TOP_K, generator=generator)

    def of_rank(self, experts: list[int], tokens: slice = slice(None)) -> torch.Tensor:
        """What a rank with these experts adds, as its kernel gives it."""
        expert_map = torch.full((EXPERTS,), -1, dtype=torch.int32)
        expert_map[experts] = torch.arange(len(experts), dtype=torch.int32)
        ids, weights = keep_local_experts(self.ids[tokens], self.weights[tokens], expert_map)
        output = torch.empty_like(self.hidden[tokens])
        packed = [
            cpu_moe.cpu_prepack_moe_weight(w[experts], "vec") for w in (self.gate_up, self.down)
        ]
        cpu_moe.cpu_fused_moe(
            output, self.hidden[tokens].contiguous(), *packed, None, None, weights, ids, "silu",
            "vec",
        )  # fmt: skip
        return output


@pytest.fixture
def exact() -> Any:
    overrides = FINALIZE, CPU_FUSED_MOE
    bind(overrides)
    yield
    unbind(overrides)


def halves(seed: int) -> tuple[list[int], list[int]]:
    order = torch.randperm(EXPERTS, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[: EXPERTS // 2], order[EXPERTS // 2 :]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.usefixtures("exact")
def test_a_layer_s_output_is_the_same_bits_wherever_experts_live(dtype: torch.dtype) -> None:
    layer, outputs = Layer(dtype), []
    for seed in range(4):
        total = torch.zeros(layer.hidden.shape, dtype=torch.float64)
        for experts in halves(seed):
            rounded = layer.of_rank(experts)
            total += (own := take_sum(len(rounded)))
            assert torch.equal(rounded, own.to(dtype))
        outputs.append(total.to(dtype))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_as_vllm_adds_them_most_rows_depend_on_where_experts_live() -> None:
    layer = Layer(torch.bfloat16)
    one, other = (layer.of_rank(a) + layer.of_rank(b) for a, b in (halves(0), halves(1)))
    assert (one != other).any(dim=1).float().mean() > 0.5


@pytest.mark.usefixtures("exact")
def test_a_token_s_output_does_not_depend_on_the_other_tokens_of_the_batch() -> None:
    layer = Layer(torch.bfloat16)
    layer.of_rank(list(range(EXPERTS)))
    together = take_sum(40)
    for token in range(40):
        layer.of_rank(list(range(EXPERTS)), slice(token, token + 1))
        assert torch.equal(take_sum(1)[0], together[token])


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    top_k=st.integers(1, 8),
    ranks=st.integers(1, 8),
    spread=st.sampled_from([1.0, 30.0]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_terms_add_up_to_one_sum_however_ranks_share_them(
    seed: int, top_k: int, ranks: int, spread: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    terms = (
        torch.randn(9, top_k, 5, generator=generator)
        * torch.rand(9, top_k, 1, generator=generator)
        * spread
    )
    terms = terms.to(dtype)
    owner = torch.randint(ranks, (9, top_k), generator=generator)
    whole = keep_sum(terms).to(dtype)
    shared = torch.zeros(9, 5, dtype=torch.float64)
    for rank in range(ranks):
        # What a kernel leaves in the rows of experts elsewhere is anything.
        seen = terms.masked_fill((owner != rank).unsqueeze(-1), float("nan"))
        shared += keep_sum(seen, owner == rank)
    assert torch.equal(shared.to(dtype), whole)


def test_triton_s_terms_are_kept_where_the_map_says_that_an_expert_is_here() -> None:
    [moe_sum] = select(MOE_SUM, "0.33.0")
    terms = torch.tensor([[[1.0], [2.0], [4.0]]]).bfloat16()
    replaced = moe_sum.replace(None)
    replaced(None, terms, torch.empty(1, 1), torch.tensor([[2, 0, -1]]), torch.tensor([-1, 0, 0]))
    assert take_sum(1).tolist() == [[1.0]]
    replaced(None, terms, torch.empty(1, 1))
    assert take_sum(1).tolist() == [[7.0]]


def test_experts_whose_terms_nobody_saw_are_refused() -> None:
    keep_sum(torch.ones(2, 1, 1))
    with pytest.raises(CombineError, match="does not show the terms"):
        take_sum(3)
    with pytest.raises(CombineError, match="VLLM_BATCH_INVARIANT=1"):
        take_sum(2)


def test_threads_that_run_through_a_layer_together_keep_their_sums_apart() -> None:
    keep_sum(torch.ones(2, 1, 1))
    other = threading.Thread(target=lambda: keep_sum(torch.zeros(2, 1, 1)))
    other.start()
    other.join()
    assert take_sum(2).tolist() == [[1.0], [1.0]]


@pytest.mark.usefixtures("exact")
def test_ranks_sums_are_added_in_float64_and_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def combine(total: torch.Tensor, is_sequence_parallel: bool) -> torch.Tensor:
        assert total.dtype == torch.float64
        assert not is_sequence_parallel
        return total[:1] + 2**-8

    monkeypatch.setattr("vllm.distributed.get_ep_group", lambda: SimpleNamespace(combine=combine))
    keep_sum(torch.tensor([[[1.0], [2**-8]], [[3.0], [0.0]]]).bfloat16())
    output = torch.empty(1, 1, dtype=torch.bfloat16)
    nothing: Any = None
    MoEPrepareAndFinalizeNaiveDPEPModular().finalize(
        output, torch.empty(2, 1), nothing, nothing, False, nothing
    )
    # Rounded on the way, 1 + 2^-8 would be 1 each time: bfloat16 has 8 bits.
    assert output.item() == 1 + 2**-7
