# SPDX-License-Identifier: Apache-2.0
"""The compiled policy against vLLM's own: exactly the same placement for any load."""

import logging
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.distributed.eplb.policy import DefaultEplbPolicy

from vllm_eplb_plugin.planning.policies import fastest as choice
from vllm_eplb_plugin.planning.policies.default import CompiledPolicy

LOADS = ("random", "zero", "equal", "one hot", "many ties", "near the end of int64")


@dataclass(frozen=True)
class Question:
    """What a policy is asked."""

    layers: int
    logical: int
    slots: int
    groups: int
    nodes: int
    ranks: int
    load: str
    seed: int
    dtype: torch.dtype = torch.int64
    has_old: bool = True

    def arguments(self) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.layers, self.logical)
        most = {"many ties": 3, "near the end of int64": 2**63 - 1}.get(self.load, 10_000)
        load = torch.randint(0, most, shape, generator=generator)
        if self.load == "zero":
            load = torch.zeros_like(load)
        elif self.load == "equal":
            load = torch.full_like(load, 7)
        elif self.load == "one hot":
            load = torch.zeros_like(load)
            load[:, self.seed % self.logical] = 1_000_000
        old = torch.rand(self.layers, self.slots, generator=generator).argsort(1) % self.logical
        numbers = (self.slots, self.groups, self.nodes, self.ranks)
        return load.to(self.dtype), *numbers, old if self.has_old else None


@st.composite
def questions(draw: st.DrawFn) -> Question:
    nodes = draw(st.integers(1, 4))
    ranks = nodes * draw(st.integers(1, 4))
    groups = draw(st.sampled_from([1, nodes, 2 * nodes, 3]))
    # Experts and slots divide over groups and ranks, and the slots of a node hold its experts.
    logical = groups * nodes * ranks * draw(st.integers(1, 3))
    redundant = ranks * draw(st.integers(0, 4))
    return Question(
        layers=draw(st.integers(1, 5)),
        logical=logical,
        slots=logical + redundant,
        groups=groups,
        nodes=nodes,
        ranks=ranks,
        load=draw(st.sampled_from(LOADS)),
        seed=draw(st.integers(0, 10**6)),
        dtype=draw(st.sampled_from([torch.int64, torch.float32])),
        has_old=draw(st.booleans()),
    )


@given(questions())
@settings(max_examples=2000)
def test_placements_are_vllm_s_own_for_any_load(question: Question) -> None:
    arguments = question.arguments()
    expected = DefaultEplbPolicy.rebalance_experts(*arguments)
    placement = CompiledPolicy.rebalance_experts(*arguments)
    assert placement.dtype == torch.int64
    assert torch.equal(placement, expected)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    ("layers", "logical", "redundant", "groups", "nodes", "ranks"),
    [
        (26, 64, 16, 1, 1, 2),
        (48, 128, 16, 1, 1, 8),
        (58, 256, 32, 8, 4, 32),
        (60, 384, 64, 1, 4, 32),
    ],
    ids=["DeepSeek-V2-Lite", "Qwen3-30B", "DeepSeek-V3", "Kimi-K2"],
)
def test_placements_are_vllm_s_own_for_models_people_serve(
    load: str, layers: int, logical: int, redundant: int, groups: int, nodes: int, ranks: int
) -> None:
    slots = logical + redundant
    arguments = Question(layers, logical, slots, groups, nodes, ranks, load, seed=3).arguments()
    expected = DefaultEplbPolicy.rebalance_experts(*arguments)
    assert torch.equal(CompiledPolicy.rebalance_experts(*arguments), expected)


@pytest.mark.parametrize(
    ("slots", "groups", "nodes", "ranks", "rule"),
    [
        (6, 1, 1, 2, "num_replicas=6 is fewer than the 8 logical experts"),
        (12, 3, 3, 3, "logical experts=8 is not divisible by num_groups=3"),
        (12, 2, 2, 3, "num_ranks=3 is not divisible by num_nodes=2"),
        (12, 1, 1, 8, "num_replicas=12 is not divisible by num_ranks=8"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(
    slots: int, groups: int, nodes: int, ranks: int, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        CompiledPolicy.rebalance_experts(torch.ones(2, 8), slots, groups, nodes, ranks)


def test_an_old_placement_with_too_few_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="has 8 slots a layer: it needs num_replicas=12"):
        CompiledPolicy.rebalance_experts(
            torch.ones(2, 8), 12, 1, 1, 2, torch.arange(8).expand(2, 8)
        )


def test_the_compiled_policy_is_chosen_for_vllm_s_own() -> None:
    assert choice.fastest(DefaultEplbPolicy) is CompiledPolicy


def test_a_policy_that_places_differently_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    class Other(DefaultEplbPolicy):
        @classmethod
        def rebalance_experts(cls, *arguments: Any) -> torch.Tensor:
            return super().rebalance_experts(*arguments).flip(1)

    with caplog.at_level(logging.WARNING):
        assert choice.fastest(Other) is Other
    assert "places experts differently from the compiled one" in caplog.text


def test_without_numba_vllm_s_own_policy_is_kept(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(DefaultEplbPolicy):
        pass

    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "vllm_eplb_plugin.planning.policies.default")
    with caplog.at_level(logging.WARNING):
        assert choice.fastest(Own) is Own
    assert "EPLB plans with vLLM's own policy, which is slower: ModuleNotFound" in caplog.text
