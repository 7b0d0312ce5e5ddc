"""One number that ranks add up: whether a layer has come, has failed, or a worker has ended."""

import itertools

import pytest
import torch

from vllm_eplb_plugin.engine.readiness import Votes


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_sum_tells_how_many_ranks_said_what(ranks: int) -> None:
    said = [Votes(1, 0, 0), Votes(0, 0, 0), Votes(1, 1, 0), Votes(0, 0, 1), Votes(1, 0, 1)]
    for votes in itertools.product(said, repeat=ranks):
        total = torch.tensor([vote.number for vote in votes], dtype=torch.int32).sum()
        told = Votes.of(int(total))
        assert told == tuple(map(sum, zip(*votes, strict=True)))


@pytest.mark.parametrize("vote", [Votes(1, 1, 0), Votes(0, 0, 1), Votes(1, 0, 1)])
def test_a_rank_without_the_plugin_reads_that_not_all_are_ready(vote: Votes) -> None:
    others = 1022
    assert vote.number + others != others + 1
    assert Votes(0, 0, 1).number + 1022 * Votes(1, 1, 1).number < 2**31
