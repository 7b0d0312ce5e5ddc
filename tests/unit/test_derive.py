# SPDX-License-Identifier: Apache-2.0
"""The derivation in place, in each of its ways: one result, that of plain Python."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import derive as reference
from tests.unit.test_maps import placements
from vllm_eplb_plugin.placement import derive
from vllm_eplb_plugin.placement.derive import check_maps, derive_into
from vllm_eplb_plugin.placement.maps import derive_logical_maps

RUBBISH = 77
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton's interpreter takes a second for a layer."""
PLACEMENTS = Path(
    os.environ.get("EPLB_PLACEMENTS_DIR")
    or Path(__file__).resolve().parents[3] / "shared" / "placements"
)


@dataclass(frozen=True)
class Way:
    """One implementation and the device that it is for."""

    derive: Callable[..., None]
    device: str

    def __call__(
        self, placement: torch.Tensor, num_logical: int, width: int, layer: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Into tensors full of rubbish."""
        shape = (placement.shape[0], num_logical)
        l2p = torch.full((*shape, width), RUBBISH, dtype=placement.dtype, device=self.device)
        counts = torch.full(shape, RUBBISH, dtype=placement.dtype, device=self.device)
        self.derive(placement.to(self.device), l2p, counts, layer)
        return l2p.cpu(), counts.cpu()


@pytest.fixture(params=["compiled", "torch", "triton"])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param == "triton":
        if not INTERPRETED and not torch.cuda.is_available():
            pytest.skip("needs a GPU; tests/releases/test_kernels.py runs it in the interpreter")
        from vllm_eplb_plugin.placement.kernels import Kernel

        return Way(
            lambda *maps_and_layer: Kernel(*maps_and_layer[:3]).derive(maps_and_layer[3]),
            "cpu" if INTERPRETED else "cuda",
        )
    ways = {"compiled": derive._derive_on_the_host, "torch": derive._derive_by_torch}
    return Way(ways[request.param], "cpu")


def test_every_row_is_that_of_the_plain_reference(way: Way) -> None:
    @given(placements(), st.integers(1, 66))
    @settings(max_examples=20 if INTERPRETED else 200)
    def check(case: tuple[torch.Tensor, int], width: int) -> None:
        placement, num_logical = case
        whole = way(placement, num_logical, width)
        for layer, row in enumerate(placement.tolist()):
            l2p, counts = reference(row, num_logical, placement.shape[1])
            # A width too small cuts rows off; counts stay true.
            cut = [(slots + [-1] * width)[:width] for slots in l2p]
            for seen in (whole, way(placement, num_logical, width, layer)):
                assert seen[0][layer].tolist() == cut
                assert seen[1][layer].tolist() == counts

    check()


@pytest.mark.parametrize(
    ("physical", "logical", "width"),
    [(1, 1, 1), (2048, 1024, 3), (2048, 1, 2048), (288, 256, 33), (448, 384, 1024), (960, 896, 65)],
)
def test_the_smallest_and_the_largest_maps_are_derived(
    way: Way, physical: int, logical: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(physical)
    layers = 1 if INTERPRETED else 5
    placement = torch.randint(-1, logical, (layers, physical), generator=generator)
    expected = derive_logical_maps(placement, logical, width)
    for seen, right in zip(way(placement, logical, width), expected, strict=True):
        assert torch.equal(seen, right)


def test_one_layer_is_written_and_nothing_beside_it(way: Way) -> None:
    placement = torch.tensor([[2, 0, 1, 0], [1, 2, 0, 2], [0, 1, 2, 0]])
    l2p, counts = way(placement, 3, 2, layer=1)
    assert l2p[1].tolist() == [[2, -1], [0, -1], [1, 3]]
    assert counts.tolist() == [[RUBBISH] * 3, [1, 1, 2], [RUBBISH] * 3]
    assert (l2p[[0, 2]] == RUBBISH).all()


def test_a_placement_may_be_a_part_of_a_larger_buffer(way: Way) -> None:
    buffer = torch.tensor([[2, 0, 1, 0, 9, 9], [1, 2, 0, 2, 9, 9]]).to(way.device)
    l2p, counts = way(buffer[:, :4], 3, 2)
    assert l2p.tolist() == [[[1, 3], [2, -1], [0, -1]], [[2, -1], [0, -1], [1, 3]]]
    assert counts.tolist() == [[2, 1, 1], [1, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    "name",
    [
        "dsv3_58x256_16ranks_prefill.npy",
        "dsv3_58x256_32ranks_gsm8k_decode_redundant.npy",
    ],
)
def test_a_real_placement_of_deepseek_v3_is_derived(
    way: Way, name: str, dtype: torch.dtype
) -> None:
    file = PLACEMENTS / name
    if not file.exists():
        pytest.skip("needs placements of DeepSeek-V3, in the folder EPLB_PLACEMENTS_DIR")
    placement = from_one_hot(np.load(file)).to(dtype)
    placement = placement[:1] if INTERPRETED else placement
    l2p, counts = way(placement, 256, 3)
    for layer, row in enumerate(placement.tolist()):
        assert (l2p[layer].tolist(), counts[layer].tolist()) == reference(row, 256, 3)


def from_one_hot(ranks: np.ndarray) -> torch.Tensor:
    """``[layers, physical]`` of a one-hot ``[ranks, layers, experts]``; -1 fills short ranks."""
    size = int(ranks.sum(axis=2).max())
    rows = [[np.flatnonzero(rank[layer]) for rank in ranks] for layer in range(ranks.shape[1])]
    filled = [
        [np.pad(slots, (0, size - len(slots)), constant_values=-1) for slots in row] for row in rows
    ]
    return torch.from_numpy(np.array(filled)).reshape(ranks.shape[1], -1)


def test_all_layers_or_one_are_derived_where_they_stand() -> None:
    placement = torch.tensor([[1, 0, 1], [0, 1, 0]])
    l2p, counts = torch.full((2, 2, 2), RUBBISH), torch.full((2, 2), RUBBISH)
    derive_into(placement, l2p, counts, layer=1)
    assert counts.tolist() == [[RUBBISH] * 2, [2, 1]]
    derive_into(placement, l2p, counts)
    assert l2p.tolist() == [[[1, -1], [0, 2]], [[0, 2], [1, -1]]]


def zeros(*shape: int, dtype: torch.dtype = torch.int64, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("maps", "rule"),
    [
        (
            lambda: (zeros(1, 3), zeros(1, 3, 1, device="meta"), zeros(1, 3)),
            "logical_replica_count have the devices cpu, meta, cpu: they must be the same",
        ),
        (
            lambda: (zeros(1, 3), zeros(1, 3, 1), zeros(1, 3, dtype=torch.int32)),
            "have the dtypes torch.int64, torch.int64, torch.int32: they must be the same",
        ),
        (
            lambda: tuple(zeros(*s, dtype=torch.int16) for s in ((1, 3), (1, 3, 1), (1, 3))),
            "are torch.int16, not int32 or int64",
        ),
        (
            lambda: (zeros(3), zeros(1, 3, 1), zeros(1, 3)),
            r"physical_to_logical_map has the shape \[3\]: it must have 2 dimensions",
        ),
        (
            lambda: (zeros(1, 3), zeros(1, 3, 0), zeros(1, 3)),
            r"logical_to_physical_map has the shape \[1, 3, 0\]: it must have 3 dimensions, none",
        ),
        (
            lambda: (zeros(2, 3), zeros(1, 3, 1), zeros(2, 3)),
            r"logical_to_physical_map has the shape \[1, 3, 1\]: .* must begin with \[2, 3\]",
        ),
        (
            lambda: (zeros(2, 3), zeros(2, 3, 1), zeros(2, 2)),
            r"logical_replica_count has the shape \[2, 2\]: .* must begin with \[2, 3\]",
        ),
        (
            lambda: (zeros(2, 3), zeros(2, 3, 4)[..., :2], zeros(2, 3)),
            r"logical_to_physical_map has the strides \(12, 4, 1\): .* must be contiguous",
        ),
        (
            lambda: (zeros(2, 3), zeros(2, 3, 2), zeros(3, 2).T),
            r"logical_replica_count has the strides \(1, 2\): .* must be contiguous",
        ),
        (
            lambda: (zeros(2, 2), zeros(2, 3, 1), zeros(2, 3)),
            "physical_to_logical_map has 2 slots a layer for 3 logical experts",
        ),
        (
            lambda: (zeros(3, 2).T, zeros(2, 3, 1), zeros(2, 3)),
            r"physical_to_logical_map has the strides \(1, 2\): each layer's row must be",
        ),
    ],
)
def test_maps_that_cannot_be_written_are_refused(
    maps: Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        check_maps(*maps())
