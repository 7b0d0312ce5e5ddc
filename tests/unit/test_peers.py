# SPDX-License-Identifier: Apache-2.0
"""Ranks that open each other's weights, or find that they cannot, in one process each."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from vllm_eplb_plugin.engine import peers
from vllm_eplb_plugin.transfer.layer_weights import LayerWeights


def _run(rank: int, place: str, hosts: list[str], free: list[int], answers: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=len(hosts))
    peers.host_name = lambda: hosts[rank]
    answer = None if free[rank] else "nothing is free"
    peers.shared_memory_problem = lambda needed: answer  # type: ignore[attr-defined]
    layers = [LayerWeights([torch.ones(2, 8) * rank])]
    group = dist.group.WORLD
    assert group is not None
    reason = peers.Peers(lambda: layers, lambda _: None).open(group)
    answers.put((rank, reason, layers[0][0].untyped_storage().is_shared()))
    dist.barrier()


@pytest.mark.parametrize(
    ("hosts", "free", "reason"),
    [
        (["a", "b"], [1, 1], "every EP rank is on a host of its own"),
        (["a", "a"], [1, 0], "a: nothing is free"),
        (["a", "a"], [1, 1], None),
    ],
)
def test_weights_move_into_shared_memory_only_where_somebody_can_read_them(
    hosts: list[str], free: list[int], reason: str | None, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    given = [(rank, str(tmp_path / "store"), hosts, free, answers) for rank in range(len(hosts))]
    ranks = [context.Process(target=_run, args=arguments) for arguments in given]
    for process in ranks:
        process.start()
    told = sorted(answers.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(30)
    assert told == [(rank, reason, reason is None) for rank in range(len(hosts))]
