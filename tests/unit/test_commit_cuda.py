# SPDX-License-Identifier: Apache-2.0
"""On a GPU a commit must not make the host wait, and captured graphs must see it."""

from collections.abc import Iterator

import pytest
import torch

from tests.reference import derive
from vllm_eplb_plugin.health.weights import digest_slots
from vllm_eplb_plugin.state.commit import commit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LAYERS, LOGICAL, REDUNDANT = 58, 256, 32
"""DeepSeek-V3 with 32 redundant experts."""


def placement(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(LAYERS):
        extra = torch.randint(0, LOGICAL, (REDUNDANT,), generator=generator)
        slots = torch.cat([torch.arange(LOGICAL), extra])
        rows.append(slots[torch.randperm(slots.shape[0], generator=generator)])
    return torch.stack(rows)


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """p2l, l2p and counts on the device, full of rubbish."""
    shapes = (
        (LAYERS, LOGICAL + REDUNDANT),
        (LAYERS, LOGICAL, REDUNDANT + 1),
        (LAYERS, LOGICAL),
    )
    p2l, l2p, counts = (torch.full(shape, 77, device="cuda") for shape in shapes)
    return p2l, l2p, counts


@pytest.fixture
def _waiting_is_an_error() -> Iterator[None]:
    commit(
        placement(0)[0],
        *(
            torch.zeros(s, dtype=torch.long, device="cuda")
            for s in ((LOGICAL + REDUNDANT,), (LOGICAL, 33), (LOGICAL,))
        ),
    )
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_waiting_is_an_error")
def test_a_commit_is_right_and_the_host_does_not_wait(
    maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    whole, one_layer = placement(1), placement(2)[5]
    commit(whole, *maps)
    commit(one_layer, *(tensor[5] for tensor in maps))
    torch.cuda.set_sync_debug_mode("default")
    whole[5] = one_layer
    p2l, l2p, counts = (tensor.tolist() for tensor in maps)
    assert p2l == whole.tolist()
    for layer, row in enumerate(whole.tolist()):
        assert (l2p[layer], counts[layer]) == derive(row, LOGICAL, REDUNDANT + 1)


def test_a_captured_graph_reads_what_was_committed_last(
    maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    _, l2p, counts = maps
    commit(placement(1), *maps)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen = l2p.sum() + counts[3, 7]
    for seed in (1, 2):
        commit(placement(seed), *maps)
        graph.replay()
        assert int(seen) == int(l2p.sum() + counts[3, 7])


def test_a_digest_is_the_same_on_every_device() -> None:
    layer = [torch.randn(4, 6, 5).to(torch.bfloat16), torch.randn(4, 3)]
    assert torch.equal(digest_slots([tensor.cuda() for tensor in layer]), digest_slots(layer))
