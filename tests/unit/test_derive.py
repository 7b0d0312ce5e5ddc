# SPDX-License-Identifier: Apache-2.0
"""The derivation in place: compiled where numba is there, torch elsewhere, one result."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import derive as reference
from tests.unit.test_maps import placements
from vllm_eplb_plugin.placement import derive
from vllm_eplb_plugin.placement.derive import derive_into

RUBBISH = 77


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(derive, "_compiled", lambda: None)
    else:
        assert derive._compiled() is not None
    way: str = request.param
    return way


def derived(
    placement: torch.Tensor, num_logical: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Into tensors full of rubbish."""
    rows = placement.shape[:-1]
    l2p = torch.full((*rows, num_logical, width), RUBBISH, dtype=placement.dtype)
    counts = torch.full((*rows, num_logical), RUBBISH, dtype=placement.dtype)
    derive_into(placement, l2p, counts)
    return l2p, counts


@pytest.mark.usefixtures("way")
def test_every_row_is_that_of_the_plain_reference() -> None:
    @given(placements(), st.integers(1, 66))
    @settings(max_examples=200, deadline=None)
    def check(case: tuple[torch.Tensor, int], width: int) -> None:
        placement, num_logical = case
        whole = derived(placement, num_logical, width)
        for layer, row in enumerate(placement.tolist()):
            l2p, counts = reference(row, num_logical, placement.shape[1])
            # A width too small cuts rows off; counts stay true.
            cut = [(slots + [-1] * width)[:width] for slots in l2p]
            for seen in ([t[layer] for t in whole], derived(placement[layer], num_logical, width)):
                assert seen[0].tolist() == cut
                assert seen[1].tolist() == counts

    check()


@pytest.mark.usefixtures("way")
def test_a_part_of_a_larger_buffer_is_written_and_nothing_beside_it() -> None:
    buffer = torch.tensor([[2, 0, 1, 0, 9, 9], [1, 2, 0, 2, 9, 9]])
    l2p, counts = torch.full((3, 3, 2), RUBBISH), torch.full((3, 3), RUBBISH)
    derive_into(buffer[:, :4], l2p[1:], counts[1:])
    assert l2p[1:].tolist() == [[[1, 3], [2, -1], [0, -1]], [[2, -1], [0, -1], [1, 3]]]
    assert counts.tolist() == [[RUBBISH] * 3, [2, 1, 1], [1, 1, 2]]
    assert (l2p[0] == RUBBISH).all()


def test_maps_on_different_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="are on cpu, meta, cpu: they must be on one device"):
        derive_into(
            torch.zeros(1, 2, dtype=torch.long),
            torch.zeros(1, 2, 1, dtype=torch.long, device="meta"),
            torch.zeros(1, 2, dtype=torch.long),
        )
