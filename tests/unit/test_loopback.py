# SPDX-License-Identifier: Apache-2.0
"""Loopback's torch stand-ins against what they mean, and its collectives on real gloo ranks."""

import multiprocessing
import tempfile
from typing import Any

import pytest
import torch
import torch.distributed as dist

from vllm_eplb_plugin.loopback.cpu.experts import keep_local_experts, map_to_physical_and_record
from vllm_eplb_plugin.loopback.cpu.uneven_collectives import (
    all_gather_uneven,
    reduce_scatter_uneven,
)
from vllm_eplb_plugin.loopback.one_gpu.host_collectives import gather_rows, sum_over_ranks
from vllm_eplb_plugin.loopback.refusals import LoopbackError


def moe(
    hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, experts: torch.Tensor
) -> torch.Tensor:
    """A MoE layer in which expert e multiplies by ``experts[e]``."""
    return (experts[ids.long()] * weights).sum(dim=1, keepdim=True) * hidden


def choices(tokens: int, experts: int, top_k: int) -> torch.Tensor:
    """``[tokens, top_k]`` int32, each token's all different."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(tokens, experts, generator=generator).argsort(dim=1)[:, :top_k].int()


def test_two_ranks_that_keep_their_local_experts_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 4, generator=generator)
    ids = choices(tokens=9, experts=6, top_k=2)
    weights = torch.rand(9, 2, generator=generator)
    experts = torch.arange(1.0, 7.0)
    maps = (torch.tensor([0, 1, 2, -1, -1, -1]), torch.tensor([-1, -1, -1, 0, 1, 2]))
    parts = [
        moe(hidden, *keep_local_experts(ids, weights, expert_map), local)
        for expert_map, local in zip(maps, experts.split(3), strict=True)
    ]
    torch.testing.assert_close(sum(parts), moe(hidden, ids, weights, experts))


@pytest.mark.parametrize(("top_k", "local"), [(1, 1), (2, 3), (3, 3), (6, 8)])
def test_a_token_names_each_local_slot_once_at_most(top_k: int, local: int) -> None:
    expert_map = torch.full((2 * local,), -1).index_copy_(
        0, torch.arange(local) * 2, torch.arange(local)
    )
    ids = choices(tokens=50, experts=2 * local, top_k=top_k)
    kept, weights = keep_local_experts(ids, torch.ones(50, top_k), expert_map)
    assert kept.dtype == torch.int32
    assert kept.min() >= 0
    assert kept.max() < local
    assert all(len(set(row)) == top_k for row in kept.tolist())
    assert torch.equal(weights, (expert_map[ids.long()] >= 0).float())


def test_more_choices_than_local_slots_are_kept_in_range() -> None:
    expert_map = torch.tensor([0, 1, -1, -1, -1, -1])
    kept, weights = keep_local_experts(choices(20, 6, 4), torch.ones(20, 4), expert_map)
    assert kept.min() >= 0
    assert kept.max() < 2
    assert (weights.sum(dim=1) <= 2).all()


def record(num_unpadded: int | None, enabled: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[0, 2], [0, 1], [0, 2], [0, 1]], dtype=torch.int32)
    l2p = torch.tensor([[3, 1, 5], [0, -1, -1], [2, 4, -1]])
    load = torch.zeros(6, dtype=torch.int32)
    unpadded = None if num_unpadded is None else torch.tensor(num_unpadded)
    counts = torch.tensor([3, 1, 2])
    physical = map_to_physical_and_record(ids, load, l2p, counts, torch.tensor(enabled), unpadded)
    return physical, load


def test_a_token_goes_to_the_replica_that_its_hash_names() -> None:
    physical, load = record(None)
    # 2654435769 mod 2^32 times the token, modulo the replica count.
    picks = [[(token * 2654435769 & 0xFFFFFFFF) % n for n in (3, 2)] for token in range(4)]
    assert physical[:, 0].tolist() == [[3, 1, 5][pick] for pick, _ in picks]
    assert physical[[0, 2], 1].tolist() == [[2, 4][picks[token][1]] for token in (0, 2)]
    assert physical[[1, 3], 1].tolist() == [0, 0]
    assert physical.dtype == torch.int32
    assert load.tolist() == torch.bincount(physical.flatten(), minlength=6).tolist()


def test_padding_is_mapped_but_not_counted() -> None:
    physical, load = record(2)
    assert torch.equal(physical, record(None)[0])
    assert load.tolist() == torch.bincount(physical[:2].flatten(), minlength=6).tolist()


def test_nothing_is_counted_while_recording_is_off() -> None:
    assert record(None, enabled=False)[1].sum() == 0


def _uneven(rank: int, results: Any) -> None:
    sizes = [2, 0, 3]
    group = dist.group.WORLD
    local = torch.full((sizes[rank], 2), float(rank))
    gathered = all_gather_uneven(local, sizes, group)
    part = reduce_scatter_uneven(torch.arange(10.0).reshape(5, 2) * (rank + 1), sizes, rank, group)
    results.put((rank, gathered.tolist(), part.tolist()))


def _rows(rank: int, sizes: list[int], device: str) -> list[torch.Tensor]:
    """Rows of every dtype that experts' inputs have, and of different shapes."""
    generator = torch.Generator().manual_seed(rank)
    hidden = torch.randn(sizes[rank], 6, generator=generator)
    ids = torch.randint(0, 99, (sizes[rank], 2), generator=generator)
    return [
        tensor.to(device)
        for tensor in (
            hidden.bfloat16(),
            hidden[:, :1],
            ids.int(),
            ids.unsqueeze(1).short().expand(-1, 3, -1),
            hidden[:, 0].half(),
        )
    ]


def _staged(rank: int, results: Any, device: str) -> None:
    group = dist.group.WORLD
    for sizes in ([2, 0, 3], [4, 4, 4], [0, 1, 0]):
        gathered = gather_rows(_rows(rank, sizes, device), sizes, group)
        of_ranks = zip(*(_rows(other, sizes, device) for other in range(3)), strict=True)
        for whole, rows in zip(gathered, of_ranks, strict=True):
            assert whole.device.type == device
            assert torch.equal(whole, torch.cat(rows))
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.int32):
        term = torch.arange(8, device=device).reshape(4, 2).to(dtype)
        total = sum_over_ranks(term * (rank + 1), group)
        assert total.device.type == device
        assert torch.equal(total, term * 6)
    # Each alone is lost when it is added to 1 in bfloat16, both together are not.
    term = torch.tensor([1.0 if rank == 0 else 2.0**-8], dtype=torch.bfloat16, device=device)
    assert sum_over_ranks(term, group).item() == 1 + 2.0**-7
    results.put((rank, True))


class _SecondOfTwo:
    """A group in which nothing can be gathered."""

    def rank(self) -> int:
        return 1


def test_rows_that_are_not_of_as_many_tokens_are_refused_and_not_gathered() -> None:
    rows: Any = [torch.zeros(3, 2), torch.ones(1)]
    group: Any = _SecondOfTwo()
    with pytest.raises(LoopbackError, match="3 tokens of this rank, and 1 rows go with them"):
        gather_rows(rows, [5, 3], group)


def _join(task: Any, rank: int, store: str, results: Any, *arguments: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    task(rank, results, *arguments)
    dist.barrier()
    dist.destroy_process_group()


def on_three_ranks(task: Any, *arguments: Any) -> list[Any]:
    """What each rank's task put into its results, sorted."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_join, args=(task, rank, f"{folder}/store", results, *arguments))
            for rank in range(3)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(timeout=120)
            assert process.exitcode == 0
    return sorted(results.get(timeout=10) for _ in ranks)


@pytest.fixture(autouse=True)
def _loopback_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


def test_uneven_collectives_on_three_ranks() -> None:
    seen = on_three_ranks(_uneven)
    summed = (torch.arange(10.0).reshape(5, 2) * 6).tolist()
    assert [part for _, _, part in seen] == [summed[:2], [], summed[2:]]
    for _, gathered, _ in seen:
        assert gathered == [[0.0, 0.0]] * 2 + [[2.0, 2.0]] * 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_staged_collectives_on_three_ranks_of_one_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    assert on_three_ranks(_staged, device) == [(rank, True) for rank in range(3)]
