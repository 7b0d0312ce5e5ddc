# SPDX-License-Identifier: Apache-2.0
"""On a GPU a commit must not make the host wait, and captured graphs must see it."""

from collections.abc import Iterator

import pytest
import torch

from tests.reference import derive
from vllm_eplb_plugin.engine import committer as commits
from vllm_eplb_plugin.engine.committer import Committer
from vllm_eplb_plugin.observe.checks.digests import digest_parts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LAYERS, LOGICAL, REDUNDANT = 58, 256, 32
"""DeepSeek-V3 with 32 redundant experts."""
MAPS = ((LAYERS, LOGICAL + REDUNDANT), (LAYERS, LOGICAL, REDUNDANT + 1), (LAYERS, LOGICAL))
A_LONG_TIME = 1_000_000_000
"""Cycles of the device: half a second."""


def placement(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(LAYERS):
        extra = torch.randint(0, LOGICAL, (REDUNDANT,), generator=generator)
        slots = torch.cat([torch.arange(LOGICAL), extra])
        rows.append(slots[torch.randperm(slots.shape[0], generator=generator)])
    return torch.stack(rows)


@pytest.fixture(params=[torch.int64, torch.int32], ids=["int64", "int32"])
def committer(request: pytest.FixtureRequest) -> Committer:
    """Maps on the device, full of rubbish, and what has to be compiled compiled."""
    maps = (torch.full(shape, 77, dtype=request.param, device="cuda") for shape in MAPS)
    made = Committer(*maps)
    made.commit(placement(0))
    for tensor in made.maps:
        tensor.fill_(77)
    torch.cuda.synchronize()
    return made


@pytest.fixture
def _waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def assert_visible(committer: Committer, expected: torch.Tensor) -> None:
    torch.cuda.set_sync_debug_mode("default")
    p2l, l2p, counts = (tensor.tolist() for tensor in committer.maps)
    assert p2l == expected.tolist()
    for layer, row in enumerate(expected.tolist()):
        assert (l2p[layer], counts[layer]) == derive(row, LOGICAL, REDUNDANT + 1)


def queue_while_busy(committer: Committer, new: list[torch.Tensor], layers: list[int]) -> bool:
    """Commit layers while the device is busy with something else; whether it still is after."""
    torch.cuda._sleep(A_LONG_TIME)
    for number, layer in enumerate(layers):
        committer.commit(new[number][layer], layer)
        new[number][layer] = -5  # what was handed over may change at once
    return not torch.cuda.current_stream().query()


@pytest.mark.usefixtures("_waiting_is_an_error")
def test_commits_are_right_and_the_host_neither_waits_nor_allocates(committer: Committer) -> None:
    before = placement(1)
    committer.commit(before)
    device, pinned = torch.cuda.memory_stats(), torch.cuda.host_memory_stats()
    queued = [placement(seed) for seed in range(2, 2 + commits._LAYERS_QUEUED)]
    layers = [5 * number % LAYERS for number in range(len(queued))]
    for number, layer in enumerate(layers):
        before[layer] = queued[number][layer]
    assert queue_while_busy(committer, queued, layers), "the host waited for the device"
    for name, stats in (("device", device), ("pinned", pinned)):
        now = torch.cuda.memory_stats() if name == "device" else torch.cuda.host_memory_stats()
        counters = [
            key for key in stats if key.endswith(("all.allocated", "allocations.allocated"))
        ]
        assert [now[key] for key in counters] == [stats[key] for key in counters], name
    assert_visible(committer, before)


def test_more_commits_than_places_are_queued_without_a_mistake(committer: Committer) -> None:
    expected = placement(1)
    committer.commit(expected)
    queued = [placement(seed) for seed in range(2, 2 + 3 * commits._LAYERS_QUEUED)]
    layers = [7 * number % LAYERS for number in range(len(queued))]
    for number, layer in enumerate(layers):
        expected[layer] = queued[number][layer]
    queue_while_busy(committer, queued, layers)
    assert_visible(committer, expected)
    for seed in range(20, 25):  # more than the places for whole maps
        torch.cuda._sleep(A_LONG_TIME // 10)
        committer.commit(placement(seed))
    assert_visible(committer, placement(24))


def test_a_captured_graph_reads_what_was_committed_last(committer: Committer) -> None:
    _, l2p, counts = committer.maps
    addresses = [tensor.data_ptr() for tensor in committer.maps]
    committer.commit(placement(1))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen = l2p.sum() + counts[3, 7]
    for seed in (1, 2):
        committer.commit(placement(seed))
        graph.replay()
        assert int(seen) == int(l2p.sum() + counts[3, 7])
    assert addresses == [tensor.data_ptr() for tensor in committer.maps]


def test_commits_race_with_graphs_that_read_and_copies_that_another_stream_makes(
    committer: Committer,
) -> None:
    """Each replay must see the commit before it; the worker's stream must see whole rows."""
    p2l, l2p, counts = committer.maps
    maps = {seed: placement(seed) for seed in range(8)}
    total = torch.zeros((), dtype=torch.long, device="cuda")
    weights = torch.randint(1, 1000, l2p.shape, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total.copy_((l2p * weights).sum() + counts.sum())
    expected = {}
    for seed, new in maps.items():
        committer.commit(new)
        graph.replay()
        expected[seed] = int(total)
    worker = torch.cuda.Stream()
    seen, copies = [], []
    for number in range(200):
        seed = number * 5 % 8
        committer.commit(maps[seed])
        committed = torch.cuda.Event()
        committed.record()
        graph.replay()
        seen.append((seed, total.clone()))
        with torch.cuda.stream(worker):
            worker.wait_event(committed)
            copies.append((seed, p2l.clone()))
            done = torch.cuda.Event()
            done.record()
        torch.cuda.current_stream().wait_event(done)
    assert all(int(value) == expected[seed] for seed, value in seen)
    assert all(torch.equal(copy.cpu().long(), maps[seed]) for seed, copy in copies)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.int32]
)
def test_rows_of_every_kind_of_weight_are_copied_in_one_call(dtype: torch.dtype) -> None:
    buffer = torch.randint(0, 120, (9, 5, 7), device="cuda").to(torch.uint8).to(dtype)
    weights = torch.zeros_like(buffer)
    torch._foreach_copy_(
        [weights[slot] for slot in (0, 3, 8)], [buffer[row] for row in (2, 3, 2)], non_blocking=True
    )
    expected = torch.zeros_like(buffer)
    expected[[0, 3, 8]] = buffer[[2, 3, 2]]
    assert torch.equal(weights.view(torch.uint8), expected.view(torch.uint8))


def test_a_digest_is_the_same_on_every_device() -> None:
    layer = [torch.randn(4, 6, 5).to(torch.bfloat16), torch.randn(4, 3)]
    assert torch.equal(digest_parts([tensor.cuda() for tensor in layer]), digest_parts(layer))
